-- The amounts come from the events, since a line that was removed again left no other trace;
-- the day and the currency come from the order.
select e.event_id::text as key,
       jsonb_build_object(
           'day', to_char(o.placed_at at time zone 'UTC', 'YYYY-MM-DD'),
           'currency', o.currency,
           'entry', booked.entry,
           'amount_cents', booked.amount_cents,
           'orders', case when booked.entry = 'placed' then 1 else 0 end,
           'order_id', o.order_id,
           'recorded_at', to_char(e.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       ) as document
from events e
join orders o on o.order_id::text = e.aggregate_id
cross join lateral (
    select case e.event_type
               when 'OrderPlaced' then 'placed'
               when 'ItemAdded' then 'items'
               when 'ItemRemoved' then 'items'
               when 'OrderCancelled' then 'cancelled'
               when 'PaymentRefunded' then 'refunded'
           end as entry,
           case e.event_type
               when 'OrderPlaced' then (e.data ->> 'total_amount_cents')::bigint
               when 'ItemAdded' then (e.data -> 'item' ->> 'line_total_cents')::bigint
               when 'ItemRemoved' then -(e.data ->> 'line_total_cents')::bigint
               else -(e.data ->> 'revenue_reversed_cents')::bigint
           end as amount_cents
) booked
where e.aggregate_type = 'order'
  and booked.entry is not null
