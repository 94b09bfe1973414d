-- From the state tables alone. An order keeps its total when it is cancelled; what a cancellation takes off is the
-- total less what refunds took off before it (a refund after it takes off nothing).
with booked as (
    select to_char(o.placed_at at time zone 'UTC', 'YYYY-MM-DD') as day,
           o.currency,
           o.total_amount_cents as gross,
           refunds.reversed as refunded,
           case when o.status = 'cancelled' then o.total_amount_cents - refunds.reversed else 0 end as cancelled
    from orders o
    cross join lateral (
        select coalesce(sum(p.revenue_reversed_cents), 0) as reversed
        from payments p
        where p.order_id = o.order_id
    ) refunds
)
select day || ' ' || currency as key,
       jsonb_build_object(
           'day', day,
           'currency', currency,
           'gross_cents', sum(gross)::bigint,
           'cancelled_cents', sum(cancelled)::bigint,
           'refunded_cents', sum(refunded)::bigint,
           'net_cents', sum(gross - cancelled - refunded)::bigint,
           'orders', count(*)
       ) as document
from booked
group by day, currency
