select event_id || '/0' as key,
       jsonb_build_object(
           'account_id', aggregate_id,
           'sequence', stream_position,
           'date', to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'kind', case event_type when 'FundsDeposited' then 'deposit' else 'withdrawal' end,
           'description', data ->> 'description',
           'reference', data ->> 'reference',
           'counterparty_account_id', data ->> 'counterparty_account_id',
           'amount_cents', case event_type when 'FundsDeposited' then 1 else -1 end * (data ->> 'amount_cents')::bigint,
           'balance_after_cents', (data ->> 'balance_after_cents')::bigint,
           'currency', data ->> 'currency'
       ) as document
from events
where event_type in ('FundsDeposited', 'FundsWithdrawn')
