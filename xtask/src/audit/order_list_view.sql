select o.order_id::text as key,
       jsonb_build_object(
           'order_id', o.order_id,
           'customer_id', o.customer_id,
           'customer_name', c.name,
           'item_count', (select count(*) from order_items i where i.order_id = o.order_id),
           'total_amount_cents', o.total_amount_cents,
           'currency', o.currency,
           'status', o.status,
           'last_updated', o.updated_at,
           'in_stock', not exists (
               select from order_items i join inventory s using (product_id)
               where i.order_id = o.order_id and s.on_hand - s.reserved <= 0
           )
       ) as document
from orders o join customers c using (customer_id)
