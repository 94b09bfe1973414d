//! What a store needs to know of an inferred type: which one of its own types fits.

use crate::expr::{Collection, Kind};
use vrl::value::kind::Field;

/// The type of a field, apart from whether it may be missing or null.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Text,
    Integer,
    Float,
    Boolean,
    Time,
    Object(Collection<Field>),
    List(Kind),
    /// Of several types, or of none: no one type of the store fits.
    Mixed,
}

pub(super) fn shape(kind: &Kind) -> Shape {
    let number = match (kind.contains_integer(), kind.contains_float()) {
        (_, true) => Some(Shape::Float),
        (true, false) => Some(Shape::Integer),
        (false, false) => None,
    };
    let mut found = [
        (kind.contains_bytes() || kind.contains_regex()).then_some(Shape::Text),
        number,
        kind.contains_boolean().then_some(Shape::Boolean),
        kind.contains_timestamp().then_some(Shape::Time),
        kind.as_object().cloned().map(Shape::Object),
        kind.as_array().map(|items| Shape::List(items.reduced_kind())),
    ]
    .into_iter()
    .flatten();
    match (found.next(), found.next()) {
        (Some(only), None) => only,
        _ => Shape::Mixed,
    }
}

/// Whether a document may lack the field, or have it as null.
pub(super) fn is_optional(kind: &Kind) -> bool {
    kind.contains_null() || kind.contains_undefined()
}

/// The fields of an object's type, by name.
pub(super) fn fields(kind: &Kind) -> impl Iterator<Item = (String, &Kind)> {
    let known = kind.as_object().map(Collection::known);
    known.into_iter().flatten().map(|(field, kind)| (field.as_str().to_owned(), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absence_do_not_matter() {
        assert_eq!(shape(&Kind::bytes().or_null()), Shape::Text);
        assert_eq!(shape(&Kind::timestamp().or_undefined()), Shape::Time);
        assert!(is_optional(&Kind::integer().or_null()) && !is_optional(&Kind::integer()));
    }

    #[test]
    fn two_kinds_of_number_are_a_float_and_other_mixtures_have_no_shape() {
        assert_eq!(shape(&Kind::integer().or_float()), Shape::Float);
        assert_eq!(shape(&Kind::bytes().or_integer()), Shape::Mixed);
        assert_eq!(shape(&Kind::null()), Shape::Mixed);
        assert_eq!(shape(&Kind::any()), Shape::Mixed);
    }
}
