//! Children of a value: all of them, one element of an array, or a slice of it.

use serde_json::Value;

/// All children of a value, in order.
pub(super) fn children(node: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match node {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Element of an array; a negative index counts from the end.
pub(super) fn element(node: &Value, index: i64) -> Option<&Value> {
    let list = node.as_array()?;
    let back = usize::try_from(index.unsigned_abs()).ok()?;
    list.get(if index < 0 {
        list.len().checked_sub(back)?
    } else {
        back
    })
}

/// Indexes of a slice (RFC 9535, 2.3.4.2.2).
pub(super) fn slice(
    length: usize,
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |index: i64| {
        if index < 0 {
            index.saturating_add(length)
        } else {
            index
        }
    };
    let (first, last) = if step < 0 {
        (
            from_end(start.unwrap_or(length - 1)).clamp(-1, length - 1),
            end.map_or(-1, |end| from_end(end).clamp(-1, length - 1)),
        )
    } else {
        (
            from_end(start.unwrap_or(0)).clamp(0, length),
            from_end(end.unwrap_or(length)).clamp(0, length),
        )
    };
    let inside = move |index: &i64| {
        if step < 0 {
            *index > last
        } else {
            step > 0 && *index < last
        }
    };
    std::iter::successors(Some(first), move |index| index.checked_add(step))
        .take_while(inside)
        .filter_map(|index| usize::try_from(index).ok())
}
