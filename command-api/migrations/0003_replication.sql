-- Who reads what: the service's own role, the connector's, and what is published. `command-api migrate` names the
-- connector's role in the setting command_api.connector_role, and sets its password each time it runs.
-- Roles belong to the whole cluster, so they may be there already, or be made by another database's migration right now.
do $$
declare
    connector text := coalesce(nullif(current_setting('command_api.connector_role', true), ''), 'debezium');
begin
    begin
        create role app login;
    exception when duplicate_object or unique_violation then null;
    end;
    begin
        execute format('create role %I login replication', connector);
    exception when duplicate_object or unique_violation then null;
    end;
    execute format('grant usage on schema public to app, %I', connector);
    grant select, insert, update, delete on all tables in schema public to app;
    grant usage on all sequences in schema public to app;
    execute format('grant select on outbox to %I', connector);
    -- its heartbeat
    execute format('grant insert (aggregate_type, aggregate_id, sequence, event_type, payload) on outbox to %I', connector);
end $$;

-- Inserts only: stamping and pruning the outbox is nobody's business downstream.
create publication outbox_pub for table outbox with (publish = 'insert');
