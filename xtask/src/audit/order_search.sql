select o.order_id::text as key,
       jsonb_build_object(
           'order_id', o.order_id,
           'customer_id', o.customer_id,
           'customer_name', o.customer_name,
           'status', o.status,
           'currency', o.currency,
           'total_amount_cents', o.total_amount_cents,
           'products', lines.names,
           'item_ids', lines.ids,
           'placed_at', to_char(o.placed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       ) as document
from orders o
cross join lateral (
    select coalesce(jsonb_agg(i.product_name order by i.position), '[]') as names,
           coalesce(jsonb_agg(i.item_id order by i.position), '[]') as ids
    from order_items i
    where i.order_id = o.order_id
) lines
