//! The domain of `tests/library` at the repository's root, without servers; the acceptance test runs it on the real stack.

use super::support::projector_with;

const SCHEMAS: &str = "../tests/library/schemas";
const PROJECTIONS: &str = "../tests/library/projections";

#[test]
fn its_files_are_right_and_tested() {
    let ran = projector_with(SCHEMAS, &["check", PROJECTIONS]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for store in ["loan_desk is right: join, in redis", "shelf is right: entity, in elasticsearch"] {
        assert!(ran.out.contains(store), "{}", ran.out);
    }
    for store in ["lending is right: facts, in clickhouse", "reading is right: rollup, in postgres"] {
        assert!(ran.out.contains(store), "{}", ran.out);
    }
    let ran = projector_with(SCHEMAS, &["test", PROJECTIONS]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(!ran.out.contains("no test gives"), "{}", ran.out);
}

#[test]
fn what_it_looks_up_is_explained() {
    let ran = projector_with(SCHEMAS, &["explain", "lending", "--projections", PROJECTIONS]);
    assert!(ran.out.contains("%book in the read model shelf, as of then, under %data.book_id"), "{}", ran.out);
    assert!(ran.out.contains("%branch in the table library.branches, by branch_id"), "{}", ran.out);
    assert!(ran.out.contains("genre ← %book.genre"), "{}", ran.out);
    let ran = projector_with(SCHEMAS, &["explain", "--projections", PROJECTIONS, "--mermaid"]);
    assert!(ran.out.contains("shelf -.->|book| lending"), "{}", ran.out);
}
