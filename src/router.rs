//! The router: from the method and path of a request to its handler.

use std::collections::HashMap;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::exchange::{HandedOver, IntoResponse, Rejection, Request, Response};
use crate::http::{Method, is_token_byte};
use crate::reactor::Service;

/// Answers the requests of one route.
pub(crate) type Handler = Box<dyn Fn(&Request) -> Response + Send + Sync>;
/// Answers requests of one route whose body is read line by line.
pub(crate) type LinesHandler = Box<dyn Fn(&Request) -> Option<Response> + Send + Sync>;
/// A check that runs before a request's handler.
pub(crate) type Before = Box<dyn Fn(&mut Request) -> Option<Response> + Send + Sync>;
/// A hook that runs before a response is written.
pub(crate) type After = Box<dyn Fn(&Request, &mut Response) + Send + Sync>;

/// A hook for malformed requests.
pub(crate) type OnRefusal = Box<dyn Fn(&Rejection<'_>) + Send + Sync>;

/// A hook that serves a connection itself.
pub(crate) type HandOver = Box<dyn Fn(HandedOver) + Send + Sync>;

/// A route or a guard that cannot be added to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    method: Method,
    path: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// The router cannot parse the path, or it conflicts with another one.
    Path(String),
    /// No request has such a path.
    UnreachablePath(&'static str),
    /// No request has such a method.
    UnreachableMethod,
    /// The method and the path have a handler already.
    SecondHandler,
    /// The method and the path have no handler that a guard could protect.
    GuardWithoutRoute,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXAMPLE: &str = "Use a path like `/rooms/{room}/messages`";
        let RouteError { method, path, .. } = self;
        match &self.reason {
            Reason::Path(error) => write!(
                f,
                "cannot add the route `{method} {path}` ({error}). {EXAMPLE}"
            ),
            Reason::UnreachablePath(reason) => write!(
                f,
                "no request can match the route `{method} {path}`, because {reason}. {EXAMPLE}"
            ),
            Reason::UnreachableMethod => write!(
                f,
                "no request can match the route `{method} {path}`, because of its method. Use \
                 `Method::Other` only for methods that have no variant; CONNECT is always rejected"
            ),
            Reason::SecondHandler => write!(
                f,
                "the route `{method} {path}` already has a handler. Remove one of the two"
            ),
            Reason::GuardWithoutRoute => write!(
                f,
                "the guard for `{method} {path}` protects nothing, because this method and path \
                 have no handler. Guard the path as the route spells it (a guard for GET also \
                 covers the HEAD requests that the GET handler answers)"
            ),
        }
    }
}

impl std::error::Error for RouteError {}

/// The routes of an engine.
#[derive(Default)]
pub(crate) struct Router {
    paths: matchit::Router<usize>,
    /// By path, as the route spells it: its index in `routes`.
    indices: HashMap<String, usize>,
    routes: Vec<Routes>,
    pub(crate) before: Vec<Before>,
    pub(crate) after: Vec<After>,
    pub(crate) on_refusal: Vec<OnRefusal>,
    /// What serves the connections whose requests no route takes.
    pub(crate) hand_over: Option<HandOver>,
}

/// The handlers and guards of one path.
#[derive(Default)]
struct Routes {
    handlers: Vec<(Method, Handler)>,
    lines: Vec<(Method, LinesHandler)>,
    guards: Vec<(Method, Before)>,
}

impl Router {
    /// Adds a handler.
    ///
    /// # Errors
    /// When no request can match the route, and when it has a handler already.
    pub(crate) fn add<R: IntoResponse>(
        &mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<(), RouteError> {
        let routes = self.at(&method, path)?;
        if routes.handlers.iter().any(|(other, _)| *other == method) {
            return Err(error(&method, path, Reason::SecondHandler));
        }
        routes.handlers.push((
            method,
            Box::new(move |request| handler(request).into_response()),
        ));
        Ok(())
    }

    /// Adds a handler that is asked before the one of a route, which may be added later.
    ///
    /// # Errors
    /// When no request can match the route.
    pub(crate) fn add_lines(
        &mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Result<(), RouteError> {
        let routes = self.at(&method, path)?;
        routes.lines.push((method, Box::new(handler)));
        Ok(())
    }

    /// Adds a check that runs before the handler of a route. The handler may be
    /// added later: see [`check_guards`](Self::check_guards).
    ///
    /// # Errors
    /// When no request can match the route.
    pub(crate) fn add_guard(
        &mut self,
        method: Method,
        path: &str,
        check: impl Fn(&mut Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Result<(), RouteError> {
        let routes = self.at(&method, path)?;
        routes.guards.push((method, Box::new(check)));
        Ok(())
    }

    /// Checks that each guard protects a handler, once all are added.
    ///
    /// # Errors
    /// When a guard would never run.
    pub(crate) fn check_guards(&self) -> Result<(), RouteError> {
        let mut paths: Vec<_> = self.indices.iter().collect();
        // With several such guards, the first one is reported.
        paths.sort_unstable_by_key(|(_, index)| **index);
        for (path, index) in paths {
            let Routes {
                handlers,
                lines,
                guards,
            } = &self.routes[*index];
            let lines = lines.iter().map(|(method, _)| method);
            for method in guards.iter().map(|(method, _)| method).chain(lines) {
                if !handlers.iter().any(|(other, _)| other == method) {
                    return Err(error(method, path, Reason::GuardWithoutRoute));
                }
            }
        }
        Ok(())
    }

    fn at(&mut self, method: &Method, path: &str) -> Result<&mut Routes, RouteError> {
        check_reachable(method, path).map_err(|reason| error(method, path, reason))?;
        let index = match self.indices.get(path) {
            Some(index) => *index,
            None => {
                let index = self.routes.len();
                let inserted = self.paths.insert(path, index);
                inserted.map_err(|e| error(method, path, Reason::Path(e.to_string())))?;
                self.indices.insert(path.to_owned(), index);
                self.routes.push(Routes::default());
                index
            }
        };
        Ok(&mut self.routes[index])
    }

    /// Returns the handler of a request, or the response of a check before it: a check of
    /// all requests, a missing route, or a guard.
    fn find(&self, request: &mut Request) -> Result<Found<'_>, Response> {
        let is_admitted = request.is_admitted();
        for check in self.before.iter().filter(|_| !is_admitted) {
            if let Some(response) = check(request) {
                return Err(response);
            }
        }
        let matched = match self.paths.at(request.path()) {
            Ok(matched) => matched,
            Err(_) if *request.method() == Method::Options && request.path() == "*" => {
                return Err(Response::status(204));
            }
            Err(_) => {
                let message = "there is nothing at this path. Check its spelling";
                return Err(Response::error(404, "not_found", message));
            }
        };
        let mut params = Vec::with_capacity(matched.params.len());
        for (name, value) in matched.params.iter() {
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                let message = "the path is not UTF-8 after percent-decoding. Encode UTF-8";
                return Err(Response::error(400, "invalid_path", message));
            };
            params.push((name.into(), value.into_owned()));
        }
        if !request.has_utf8_query() {
            let message = "the query is not UTF-8 after percent-decoding. Encode UTF-8";
            return Err(Response::error(400, "invalid_query", message));
        }
        let routes = &self.routes[*matched.value];
        request.set_params(params);
        let (method, handler) = routes
            .handler(request.method())
            .ok_or_else(|| routes.without_handler(request.method()))?;
        let guards = routes.guards.iter().filter(|(of, _)| of == method);
        for (_, check) in guards.filter(|_| !is_admitted) {
            if let Some(response) = check(request) {
                return Err(response);
            }
        }
        let lines = routes.lines.iter().find(|(of, _)| of == method);
        Ok(Found {
            handler,
            // It was asked when the head was complete, if the body came later.
            lines: lines.filter(|_| !is_admitted).map(|(_, handler)| handler),
        })
    }
}

/// The handlers of a request.
struct Found<'a> {
    handler: &'a Handler,
    /// The one that is asked first.
    lines: Option<&'a LinesHandler>,
}

impl Routes {
    /// Returns the handler for a method, and the method for which it was added: GET also
    /// handles HEAD.
    fn handler(&self, method: &Method) -> Option<&(Method, Handler)> {
        let find = |wanted: &Method| self.handlers.iter().find(|(method, _)| method == wanted);
        find(method).or_else(|| match method {
            Method::Head => find(&Method::Get),
            _ => None,
        })
    }

    /// Returns the response to a method without a handler.
    fn without_handler(&self, method: &Method) -> Response {
        let allow = allowed(&self.handlers);
        let response = if *method == Method::Options {
            Response::status(204)
        } else {
            let message = format!("the methods of this path are {allow}. Use one of these");
            Response::error(405, "method_not_allowed", &message)
        };
        response
            .with_header("Allow", allow)
            .expect("methods are tokens")
    }
}

fn error(method: &Method, path: &str, reason: Reason) -> RouteError {
    RouteError {
        method: method.clone(),
        path: path.to_owned(),
        reason,
    }
}

/// Checks that a request can have this method and this path. Paths of requests are
/// compared as they were sent, still percent-encoded.
fn check_reachable(method: &Method, path: &str) -> Result<(), Reason> {
    if Method::from_name(method.as_str()) != *method || !is_routable(method) {
        return Err(Reason::UnreachableMethod);
    }
    if !path.starts_with('/') {
        return Err(Reason::UnreachablePath("it does not begin with `/`"));
    }
    let mut is_in_name = false;
    for c in path.chars() {
        match c {
            '{' => is_in_name = true,
            '}' => is_in_name = false,
            _ if is_in_name => {}
            '?' | '#' => {
                let reason = "a path ends before `?` or `#` (for a query, use `Request::query`)";
                return Err(Reason::UnreachablePath(reason));
            }
            c if !c.is_ascii_graphic() => {
                let reason =
                    "a request's path has only visible ASCII characters (percent-encode others)";
                return Err(Reason::UnreachablePath(reason));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The parser rejects CONNECT and methods that are not tokens.
fn is_routable(method: &Method) -> bool {
    let name = method.as_str();
    name != "CONNECT" && !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Returns the value of the header `Allow`.
fn allowed(methods: &[(Method, Handler)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    if !names.contains(&"OPTIONS") {
        names.push("OPTIONS");
    }
    names.join(", ")
}

impl Service for Router {
    fn call(&self, request: &mut Request) -> Response {
        match request.without_body(|request| self.find(request)) {
            Ok(Found { handler, lines }) => {
                let response = lines.and_then(|lines| lines(request));
                response.unwrap_or_else(|| handler(request))
            }
            Err(response) => response,
        }
    }

    fn admit(&self, request: &mut Request) -> Option<Response> {
        match self.find(request) {
            Ok(found) => found.lines.and_then(|lines| lines(request)),
            Err(response) => Some(response),
        }
    }

    fn finish(&self, request: &Request, response: &mut Response) {
        for after in &self.after {
            after(request, response);
        }
    }

    fn hands_over(&self) -> bool {
        self.hand_over.is_some()
    }

    fn is_for_program(&self, method: &str, path: &str) -> bool {
        let method = Method::from_name(method);
        let is_options = method == Method::Options;
        match self.paths.at(path) {
            Ok(matched) => {
                let routes = &self.routes[*matched.value];
                !is_options && routes.handler(&method).is_none()
            }
            Err(_) => !(is_options && path == "*"),
        }
    }

    fn hand_over(&self, connection: HandedOver) {
        if let Some(hand_over) = &self.hand_over {
            hand_over(connection);
        }
    }

    fn on_refusal(&self, rejection: &Rejection<'_>) {
        for hook in &self.on_refusal {
            hook(rejection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handled(methods_and_paths: &[(Method, &str)]) -> Result<Router, RouteError> {
        let mut router = Router::default();
        for (method, path) in methods_and_paths {
            router.add(method.clone(), path, |_: &Request| "fine")?;
        }
        Ok(router)
    }

    #[test]
    fn a_path_that_no_request_can_have_is_an_error() {
        let unreachable = [
            "",
            "rooms",
            "*",
            "{*rest}",
            "http://example.org/rooms",
            "/two words",
            "/rooms?of=house",
            "/rooms#first",
            "/gr\u{fc}\u{df}e",
            "/a\nb",
        ];
        for path in unreachable {
            let error = handled(&[(Method::Get, path)]).err().unwrap();
            let text = error.to_string();
            assert!(text.starts_with("no request can match"), "{path:?}: {text}");
            let guard = Router::default().add_guard(Method::Get, path, |_| None);
            assert_eq!(guard, Err(error));
        }
        for path in ["/", "/two%20words", "/rooms/{the room}", "/{*rest}", "/a/"] {
            assert!(handled(&[(Method::Get, path)]).is_ok(), "{path}");
        }
        assert!(handled(&[(Method::Get, "/{a")]).is_err());
        assert!(handled(&[(Method::Get, "/{a}"), (Method::Get, "/{b}")]).is_err());
    }

    #[test]
    fn a_method_that_no_request_can_have_is_an_error() {
        for method in ["GET", "CONNECT", "", "TWO WORDS"] {
            let error = handled(&[(Method::Other(method.into()), "/")]).err();
            assert_eq!(error.unwrap().reason, Reason::UnreachableMethod, "{method}");
        }
        assert!(handled(&[(Method::Other("PURGE".into()), "/")]).is_ok());
    }

    #[test]
    fn a_second_handler_of_a_route_is_an_error() {
        let twice = handled(&[
            (Method::Get, "/a"),
            (Method::Post, "/a"),
            (Method::Get, "/a"),
        ]);
        let text = twice.err().unwrap().to_string();
        assert!(
            text.starts_with("the route `GET /a` already has a handler."),
            "{text}"
        );
    }

    #[test]
    fn a_guard_without_a_handler_is_an_error_and_its_handler_may_come_later() {
        let mut router = handled(&[(Method::Get, "/rooms/{room}")]).unwrap();
        router
            .add_guard(Method::Post, "/rooms/{room}", |_| None)
            .unwrap();
        let error = router.check_guards().unwrap_err();
        assert_eq!(error.reason, Reason::GuardWithoutRoute);
        router
            .add(Method::Post, "/rooms/{room}", |_: &Request| "fine")
            .unwrap();
        assert_eq!(router.check_guards(), Ok(()));
        // A HEAD request is answered, and guarded, as a GET request is.
        router
            .add_guard(Method::Head, "/rooms/{room}", |_| None)
            .unwrap();
        assert!(router.check_guards().is_err());
    }
}
