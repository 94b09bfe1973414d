-- A Redis hash holds texts, hence ::text throughout.
select 'account_balance:' || aggregate_id as key,
       jsonb_build_object(
           'aggregate_id', aggregate_id,
           'current_balance_cents', (sum(case event_type
               when 'FundsDeposited' then (data ->> 'amount_cents')::bigint
               when 'FundsWithdrawn' then -(data ->> 'amount_cents')::bigint
               else 0
           end))::text,
           'currency', max(data ->> 'currency') filter (where event_type = 'AccountOpened'),
           'status', case (array_agg(event_type order by stream_position desc)
                           filter (where event_type in ('AccountOpened', 'AccountLocked', 'AccountUnlocked', 'AccountClosed')))[1]
               when 'AccountLocked' then 'locked'
               when 'AccountClosed' then 'closed'
               else 'open'
           end,
           'last_updated_sequence', max(stream_position)::text,
           'last_updated_at', to_char(
               (array_agg(created_at order by stream_position desc))[1] at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
           )
       ) as document
from events
where aggregate_type = 'account'
group by aggregate_id
