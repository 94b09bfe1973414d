select o.order_id::text as key,
       jsonb_build_object(
           'order_id', o.order_id,
           'customer_id', o.customer_id,
           'customer_name', o.customer_name,
           'customer_email', o.customer_email,
           'status', o.status,
           'items', (
               select coalesce(jsonb_agg(jsonb_build_object(
                   'item_id', i.item_id,
                   'product_id', i.product_id,
                   'product_name', i.product_name,
                   'image_url', i.image_url,
                   'quantity', i.quantity,
                   'unit_price_cents', i.unit_price_cents,
                   'line_total_cents', i.line_total_cents
               ) order by i.position), '[]')
               from order_items i where i.order_id = o.order_id
           ),
           'item_count', (select count(*) from order_items i where i.order_id = o.order_id),
           'total_amount_cents', o.total_amount_cents,
           'currency', o.currency,
           'shipping_address', o.shipping_address,
           'estimated_delivery', o.estimated_delivery,
           'placed_at', o.placed_at,
           'shipped_at', o.shipped_at,
           'tracking_number', o.tracking_number,
           'cancelled_at', o.cancelled_at,
           'cancellation_reason', o.cancellation_reason,
           'version', o.version
       ) as document
from orders o
