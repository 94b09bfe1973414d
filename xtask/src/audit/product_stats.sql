-- The state tables forget the items that were removed later; what was ordered is in the events.
select 'product_stats:' || (item ->> 'product_id') as key,
       jsonb_build_object(
           'product_id', item ->> 'product_id',
           'purchase_count', count(*)::text,
           'units', sum((item ->> 'quantity')::bigint)::text,
           'revenue_cents', sum((item ->> 'line_total_cents')::bigint)::text
       ) as document
from events, jsonb_array_elements(data -> 'items') as item
where event_type = 'OrderPlaced'
group by item ->> 'product_id'
