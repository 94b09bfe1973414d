-- A Redis hash holds texts, hence ::text throughout.
select 'order:' || o.order_id as key,
       jsonb_build_object(
           'order_id', o.order_id::text,
           'customer_id', o.customer_id::text,
           'customer_name', o.customer_name,
           'item_count', (select count(*) from order_items i where i.order_id = o.order_id)::text,
           'total_amount_cents', o.total_amount_cents::text,
           'currency', o.currency,
           'status', o.status,
           'version', o.version::text,
           'updated_at', to_char(o.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       ) as document
from orders o
