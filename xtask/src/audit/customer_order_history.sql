select o.order_id::text as key,
       jsonb_build_object(
           'order_id', o.order_id,
           'customer_id', o.customer_id,
           'customer_name', o.customer_name,
           'created_at', to_char(o.placed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'status', o.status,
           'currency', o.currency,
           'total_amount_cents', o.total_amount_cents,
           'products', lines.products,
           'items_preview', lines.preview,
           'updated_at', to_char(o.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       ) as document
from orders o
cross join lateral (
    select coalesce(jsonb_agg(line.product order by line.nth), '[]') as products,
           coalesce(jsonb_agg(line.product -> 'name' order by line.nth) filter (where line.nth <= 3), '[]') as preview
    from (
        select row_number() over (order by i.position) as nth,
               jsonb_build_object(
                   'item_id', i.item_id,
                   'product_id', i.product_id,
                   'name', i.product_name,
                   'price_cents', i.unit_price_cents,
                   'image_url', i.image_url
               ) as product
        from order_items i
        where i.order_id = o.order_id
    ) line
) lines
