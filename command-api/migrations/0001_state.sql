-- The state tables: what is, normalized for integrity. How it came about is in `events`.
-- `version` is the aggregate's sequence; times are those of the events, to the microsecond.

create table customers (
    customer_id        uuid primary key,
    first_name         text        not null,
    last_name          text        not null,
    name               text        not null,
    email              text        not null,
    active             boolean     not null,
    -- null: no limit
    credit_limit_cents bigint check (credit_limit_cents >= 0),
    version            bigint      not null check (version > 0),
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    deactivated_at     timestamptz
);

create table products (
    product_id  uuid primary key,
    name        text        not null,
    description text,
    category    text        not null,
    subcategory text,
    tags        text[]      not null,
    price_cents bigint      not null check (price_cents >= 0),
    currency    text        not null,
    image_url   text,
    version     bigint      not null check (version > 0),
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);

create table inventory (
    product_id uuid primary key references products,
    on_hand    bigint not null,
    reserved   bigint not null check (reserved >= 0),
    check (on_hand >= reserved)
);

create table orders (
    order_id               uuid primary key,
    customer_id            uuid        not null references customers,
    customer_name          text        not null,
    customer_email         text        not null,
    status                 text        not null check (status in ('pending', 'confirmed', 'shipped', 'delivered', 'cancelled')),
    currency               text        not null,
    total_amount_cents     bigint      not null check (total_amount_cents >= 0),
    paid_cents             bigint      not null check (paid_cents between 0 and total_amount_cents),
    revenue_reversed_cents bigint      not null check (revenue_reversed_cents between 0 and total_amount_cents),
    shipping_address       jsonb       not null,
    estimated_delivery     timestamptz not null,
    tracking_number        text,
    placed_at              timestamptz not null,
    shipped_at             timestamptz,
    delivered_at           timestamptz,
    cancelled_at           timestamptz,
    cancellation_reason    text,
    version                bigint      not null check (version > 0),
    created_at             timestamptz not null,
    updated_at             timestamptz not null
);
create index orders_customer on orders (customer_id, placed_at);
-- What a customer owes is read with every order placed.
create index orders_unpaid on orders (customer_id) include (total_amount_cents, paid_cents) where status = 'pending';

create table order_items (
    item_id          uuid primary key,
    order_id         uuid    not null references orders,
    -- the order of the lines; gaps are left by removed ones
    position         integer not null,
    product_id       uuid    not null references products,
    product_name     text    not null,
    image_url        text,
    quantity         integer not null check (quantity > 0),
    unit_price_cents bigint  not null,
    line_total_cents bigint  not null check (line_total_cents = quantity * unit_price_cents),
    unique (order_id, position)
);

create table payments (
    payment_id             uuid primary key,
    order_id               uuid        not null references orders,
    -- the order in which they came
    position               integer     not null,
    amount_cents           bigint      not null check (amount_cents > 0),
    currency               text        not null,
    -- refunded: all of it; a part given back shows in refunded_cents only
    status                 text        not null check (status in ('confirmed', 'failed', 'refunded')),
    refunded_cents         bigint      not null check (refunded_cents between 0 and amount_cents),
    revenue_reversed_cents bigint      not null check (revenue_reversed_cents between 0 and refunded_cents),
    -- of the last change
    processed_at           timestamptz not null,
    unique (order_id, position)
);
