-- no-transaction
-- The slot exists before the first row is written: what is sent before the connector exists arrives too.
-- Slots belong to the whole cluster; the setting command_api.slot names it, and without one none is made (databases of
-- tests). A slot of this name in another database is an error.
select pg_create_logical_replication_slot(slot, 'pgoutput')
from (select nullif(current_setting('command_api.slot', true), '') as slot) as setting
where slot is not null
  and not exists (select from pg_replication_slots where slot_name = slot and database = current_database());
