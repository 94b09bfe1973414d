select concat_ws(':', aggregate_id, month, currency) as key,
       jsonb_build_object(
           'account_id', aggregate_id,
           'month', month,
           'currency', currency,
           'deposited_cents', coalesce(sum(cents) filter (where event_type = 'FundsDeposited'), 0)::bigint,
           'withdrawn_cents', coalesce(sum(cents) filter (where event_type = 'FundsWithdrawn'), 0)::bigint,
           'transactions', count(*)
       ) as document
from (
    select aggregate_id, event_type, data ->> 'currency' as currency, (data ->> 'amount_cents')::bigint as cents,
           to_char(created_at at time zone 'UTC', 'YYYY-MM') as month
    from events
    where event_type in ('FundsDeposited', 'FundsWithdrawn')
) as movements
group by aggregate_id, month, currency
