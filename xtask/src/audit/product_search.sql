select p.product_id::text as key,
       jsonb_build_object(
           'product_id', p.product_id,
           'name', p.name,
           'description', p.description,
           'category', p.category,
           'subcategory', p.subcategory,
           'tags', p.tags,
           'price_cents', p.price_cents,
           'currency', p.currency,
           'image_url', p.image_url,
           'rating', case when p.review_count = 0 then 0 else round(p.rating_sum::numeric / p.review_count, 2) end,
           'review_count', p.review_count,
           'in_stock', s.on_hand - s.reserved > 0,
           'created_at', to_char(p.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       ) as document
from products p join inventory s using (product_id)
