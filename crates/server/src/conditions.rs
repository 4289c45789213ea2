//! Conditions on the metadata of clients in a query: `where.FIELD=VALUE` and
//! `not.FIELD=VALUE`.

use super::errors::Problem;
use super::limits::CONDITIONS_MAX;
use pushwheel::Condition;

/// Reads a parameter as a condition. `None` if it is another parameter. Refuses a field
/// whose name ends in an operator: `where.x!=1` has the field `x!`, which no client has.
pub(super) fn condition(name: &str, value: &str) -> Result<Option<Condition>, Problem> {
    let condition = match name.split_once('.') {
        Some(("where", field)) => Condition::new(field, value),
        Some(("not", field)) => Condition::not(field, value),
        _ => return Ok(None),
    };
    match condition.field().chars().last() {
        None => Ok(None),
        Some('!' | '<' | '>') => Err(Problem::operator(name)),
        Some(_) => Ok(Some(condition)),
    }
}

/// Adds a condition to those of a request.
pub(super) fn add(conditions: &mut Vec<Condition>, condition: Condition) -> Result<(), Problem> {
    if conditions.len() == CONDITIONS_MAX {
        return Err(Problem::too_many_conditions());
    }
    conditions.push(condition);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_no_operator_but_not() {
        let (x, not_x) = (Condition::new("x", "1"), Condition::not("x.y", "1"));
        assert_eq!(condition("where.x", "1"), Ok(Some(x)));
        assert_eq!(condition("not.x.y", "1"), Ok(Some(not_x)));
        for name in ["where.x!", "where.x<", "where.x>", "not.x!"] {
            let Err(Problem::Request {
                status, message, ..
            }) = condition(name, "1")
            else {
                panic!("{name} was accepted");
            };
            assert_eq!(status, 400);
            assert!(message.contains("`not."), "{message}");
        }
        for name in ["where.", "not.", "where", "x.y"] {
            assert_eq!(condition(name, "1"), Ok(None), "{name}");
        }
    }
}
