//! The shop's input from TPC-H: who buys, what is sold, which orders are placed.
//!
//! The scale factor is chosen such that the order table holds the wanted number of orders; customers and parts then
//! follow in TPC-H's own proportions, and every part that a line names exists. The seed rotates which customer and
//! which part a key means, and draws the names that TPC-H doesn't have.

use tpchgen::{
    distribution::Distributions,
    generators::{CustomerGenerator, LineItemGenerator, OrderGenerator, PartGenerator},
    text::TextPool,
};

use super::rng::Rng;

const ORDERS_PER_SCALE: f64 = 1_500_000.0;
/// Below this, TPC-H's proportions leave no supplier, and the generator divides by zero.
const ORDERS_MIN: u32 = 300;
/// Comments aren't used, so the pool they are cut from may be small (TPC-H's own takes 300 MB and seconds).
const TEXT_POOL_BYTES: i32 = 1 << 20;

pub(super) const CURRENCY: &str = "USD";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) customers: Vec<Customer>,
    pub(super) products: Vec<Product>,
    pub(super) orders: Vec<Order>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Customer {
    pub(super) name: Name,
    pub(super) email: String,
    pub(super) address: Address,
}

/// One field or two: the older or the newer version of CustomerRegistered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Whole(String),
    Parts { first: String, last: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) street: String,
    pub(super) city: String,
    pub(super) zip: String,
    pub(super) country: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) category: String,
    pub(super) subcategory: String,
    pub(super) tags: Vec<String>,
    pub(super) price_cents: i64,
    pub(super) image_url: Option<String>,
}

/// Customers and products by their place in [`Input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) customer: usize,
    pub(super) lines: Vec<Line>,
    pub(super) total_cents: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) product: usize,
    pub(super) quantity: i64,
}

pub(super) fn generate(orders: u32, seed: u64) -> Input {
    // half an order more, since the row count is truncated
    let scale = (f64::from(orders.max(ORDERS_MIN)) + 0.5) / ORDERS_PER_SCALE;
    let words = Distributions::static_default();
    let pool = TextPool::new(TEXT_POOL_BYTES, words);

    let mut rng = Rng::new(seed, 1);
    let customers: Vec<_> = CustomerGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, &pool)
        .iter()
        .map(|row| customer(&row, words, &mut rng))
        .collect();
    let products: Vec<_> = PartGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, &pool)
        .iter()
        .map(|row| product(&row))
        .collect();

    let place = |key: i64, count: usize| ((key.unsigned_abs() - 1).wrapping_add(seed) % count as u64) as usize;
    let mut lines =
        LineItemGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, &pool).iter().peekable();
    let orders = OrderGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, &pool)
        .iter()
        .take(orders as usize)
        .map(|row| {
            let mut order =
                Order { customer: place(row.o_custkey, customers.len()), lines: Vec::new(), total_cents: 0 };
            while let Some(line) = lines.next_if(|line| line.l_orderkey == row.o_orderkey) {
                let product = place(line.l_partkey, products.len());
                let quantity = line.l_quantity;
                order.total_cents += products[product].price_cents * quantity;
                order.lines.push(Line { product, quantity });
            }
            order
        })
        .collect();
    Input { customers, products, orders }
}

fn customer(row: &tpchgen::generators::Customer<'_>, words: &Distributions, rng: &mut Rng) -> Customer {
    let (first, last) = (rng.pick(&FIRST_NAMES), rng.pick(&LAST_NAMES));
    let nation = words.nations().get_value(row.c_nationkey as usize);
    Customer {
        name: if row.c_custkey % 2 == 1 {
            Name::Whole(format!("{first} {last}"))
        } else {
            Name::Parts { first: first.to_owned(), last: last.to_owned() }
        },
        email: format!("{}.{}.{}@example.com", first.to_lowercase(), last.to_lowercase(), row.c_custkey),
        address: Address {
            street: row.c_address.to_string(),
            city: capitalised(nation),
            zip: row.c_phone.to_string().replace('-', "").chars().take(5).collect(),
            country: nation.to_owned(),
        },
    }
}

fn product(row: &tpchgen::generators::Part<'_>) -> Product {
    // such as "PROMO BURNISHED COPPER": how it is made, then what of
    let (kind, material) = row.p_type.rsplit_once(' ').unwrap_or(("", row.p_type));
    Product {
        name: capitalised(&row.p_name.to_string()),
        description: format!(
            "{} {} in a {}, size {}",
            row.p_brand,
            row.p_type.to_lowercase(),
            row.p_container.to_lowercase(),
            row.p_size
        ),
        category: capitalised(material),
        subcategory: capitalised(kind),
        tags: vec![row.p_mfgr.to_string(), row.p_brand.to_string(), row.p_container.to_lowercase()],
        price_cents: row.p_retailprice.into_inner(),
        // some without an image: the field is nullable, and the read models must agree on it
        image_url: (row.p_partkey % 5 != 0).then(|| format!("https://images.example.com/parts/{}.webp", row.p_partkey)),
    }
}

fn capitalised(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut chars = lower.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

pub(super) const FIRST_NAMES: [&str; 16] = [
    "Ada",
    "Barbara",
    "Chen",
    "Dorothy",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Jean",
    "Katherine",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
    "Tony",
];
pub(super) const LAST_NAMES: [&str; 16] = [
    "Allen",
    "Bartik",
    "Codd",
    "Dijkstra",
    "Floyd",
    "Gray",
    "Hamilton",
    "Hoare",
    "Johnson",
    "Knuth",
    "Lamport",
    "Liskov",
    "Perlman",
    "Stonebraker",
    "Vaughan",
    "Wirth",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_proportions_of_tpch_and_the_wanted_number_of_orders() {
        let input = generate(5_000, 1);
        assert_eq!(input.orders.len(), 5_000);
        assert_eq!(input.customers.len(), 500);
        assert_eq!(input.products.len(), 666);
        let lines: usize = input.orders.iter().map(|order| order.lines.len()).sum();
        assert!((15_000..=25_000).contains(&lines), "{lines} lines");
    }

    #[test]
    fn every_order_is_one_that_the_rules_accept() {
        for orders in [1, 7, 300, 2_000] {
            let input = generate(orders, 42);
            assert_eq!(input.orders.len(), orders as usize);
            for order in &input.orders {
                assert!(order.customer < input.customers.len());
                assert!((1..=7).contains(&order.lines.len()));
                let total: i64 =
                    order.lines.iter().map(|line| line.quantity * input.products[line.product].price_cents).sum();
                assert_eq!(total, order.total_cents);
                assert!(total >= 1_000);
                assert!(order.lines.iter().all(|line| line.quantity > 0));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_input_and_another_seed_another() {
        assert_eq!(generate(200, 3), generate(200, 3));
        assert_ne!(generate(200, 3), generate(200, 4));
    }

    #[test]
    fn both_versions_of_a_customer_and_both_cases_of_the_image_occur() {
        let input = generate(1_000, 1);
        let whole = |customer: &&Customer| matches!(customer.name, Name::Whole(_));
        assert_eq!(input.customers.iter().filter(whole).count(), 50);
        assert!(input.products.iter().any(|product| product.image_url.is_none()));
        assert!(input.products.iter().any(|product| product.image_url.is_some()));
    }
}
