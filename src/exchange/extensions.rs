//! Values that one part of a program passes to another with a request.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

/// Values of a request, at most one of each type: a guard inserts what it has found
/// out about the request, and the handler reads it. See
/// [`Request::extensions`](crate::Request::extensions).
///
/// A clone of a request shares the values.
///
/// ```
/// # use pushwheel::Request;
/// struct Tenant(String);
///
/// fn guard(request: &mut Request) {
///     let tenant = request.header("x-tenant").unwrap_or("public").to_owned();
///     request.extensions_mut().insert(Tenant(tenant));
/// }
///
/// fn handler(request: &Request) -> String {
///     let tenant = request.extensions().get::<Tenant>();
///     tenant.map_or_else(String::new, |tenant| tenant.0.clone())
/// }
/// ```
#[derive(Clone, Default)]
pub struct Extensions {
    /// A request has few, and usually none: that takes no memory.
    values: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
}

impl Extensions {
    /// Inserts a value. It replaces the one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        let value: Arc<dyn Any + Send + Sync> = Arc::new(value);
        match self.values.iter_mut().find(|(other, _)| *other == id) {
            Some((_, old)) => *old = value,
            None => self.values.push((id, value)),
        }
    }

    /// Returns the value of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let (_, value) = self.values.iter().find(|(other, _)| *other == id)?;
        value.downcast_ref()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("len", &self.values.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_of_each_type_and_a_newer_one_replaces_it() {
        #[derive(Debug, PartialEq)]
        struct User(&'static str);

        let mut extensions = Extensions::default();
        assert_eq!(extensions.get::<User>(), None);
        extensions.insert(User("ann"));
        extensions.insert(7_u8);
        let shared = extensions.clone();
        extensions.insert(User("bob"));
        assert_eq!(extensions.get(), Some(&User("bob")));
        assert_eq!(extensions.get(), Some(&7_u8));
        assert_eq!(shared.get(), Some(&User("ann")));
    }
}
