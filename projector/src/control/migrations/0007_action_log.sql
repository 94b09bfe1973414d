-- What operators did that no other log keeps, such as a connector started again.
create table action_log (
    action_log_id bigint generated always as identity primary key,
    at            timestamptz not null default now(),
    what          text        not null,
    subject       text        not null,
    who           text        not null,
    why           text
);
