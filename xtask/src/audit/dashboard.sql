-- All is booked on the order's own day; a day's hash lives for two. A Redis hash holds texts.
with entries as (
    select e.data ->> 'currency' as currency,
           case when e.event_type = 'OrderPlaced' then 1 end as orders,
           case e.event_type
               when 'OrderPlaced' then (e.data ->> 'total_amount_cents')::bigint
               when 'ItemAdded' then (e.data -> 'item' ->> 'line_total_cents')::bigint
               when 'ItemRemoved' then -(e.data ->> 'line_total_cents')::bigint
               else -(e.data ->> 'revenue_reversed_cents')::bigint
           end as cents,
           ((e.data ->> 'placed_at')::timestamptz at time zone 'UTC')::date as day
    from events e
    where e.event_type in ('OrderPlaced', 'ItemAdded', 'ItemRemoved', 'OrderCancelled', 'PaymentRefunded')
), days as (
    select day, currency, sum(orders) as orders, sum(cents)::bigint as cents
    from entries
    where day > (now() at time zone 'UTC')::date - 2
    group by day, currency
)
select 'dashboard:sales:' || day as key,
       jsonb_build_object(
           'date', day::text,
           'total_orders', sum(orders)::text,
           'revenue_cents', replace(jsonb_object_agg(currency, cents)::text, ' ', '')
       ) as document
from days
group by day
