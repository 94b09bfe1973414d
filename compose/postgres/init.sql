-- What both paths need before the first migration; safe to repeat.
-- For development the role may do all: its migrations make a replication role and a slot, which Postgres 15 leaves to superusers.
select 'create role app login superuser' where not exists (select from pg_roles where rolname = 'app') \gexec
select 'create database app owner app' where not exists (select from pg_database where datname = 'app') \gexec
select 'create database control owner app' where not exists (select from pg_database where datname = 'control') \gexec
select 'create database read_models owner app' where not exists (select from pg_database where datname = 'read_models') \gexec
select 'create database registry' where not exists (select from pg_database where datname = 'registry') \gexec
