//! `pushwheel token`: makes a token, and checks one as the server does.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use jsonwebtoken::dangerous;
use pushwheel_check::numbers::{YEAR_S, seconds};
use pushwheel_server::{Config, TokenKeys};
use serde_json::{Map, Value, json};

use super::serve::TokenArguments;
use super::sub::without_controls;
use super::{Failure, Secret};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Channel that the token may subscribe to: a name, or a prefix and `*`
    ///
    /// May be repeated.
    #[arg(long, value_name = "PATTERN", required_unless_present = "publish")]
    subscribe: Vec<String>,

    /// Channel that the token may publish to: a name, or a prefix and `*`
    ///
    /// May be repeated.
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,

    /// Channel that the token may finish with a publish: a name, or a prefix and `*`
    ///
    /// May be repeated.
    #[arg(long, value_name = "PATTERN")]
    finish: Vec<String>,

    /// Id of the client [default: a random one for each stream]
    #[arg(long, value_name = "ID")]
    client: Option<String>,

    /// Metadata of the client, as a JSON object such as {"role": "admin"}
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,

    /// Lifetime of the token, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    #[arg(value_parser = seconds(1..=YEAR_S))]
    lifetime: u64,

    #[command(flatten)]
    tokens: TokenArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a token, and print its claims
    ///
    /// Uses the same keys and settings as `pushwheel serve`. Prints the claims of a
    /// rejected token too: they may be forged.
    Check(Check),
}

#[derive(Debug, Args)]
struct Check {
    /// Token; - reads it from standard input
    #[arg(env = "PUSHWHEEL_TOKEN", hide_env_values = true)]
    token: Secret,

    #[command(flatten)]
    tokens: TokenArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(Command::Check(arguments)) = &arguments.command {
        return check(arguments);
    }
    let mut own = Map::new();
    for (name, channels) in [
        ("subscribe", &arguments.subscribe),
        ("publish", &arguments.publish),
        ("finish", &arguments.finish),
    ] {
        if !channels.is_empty() {
            own.insert(name.to_owned(), json!(channels));
        }
    }
    if let Some(client) = &arguments.client {
        own.insert("client".to_owned(), json!(client));
    }
    if let Some(metadata) = &arguments.metadata {
        own.insert("metadata".to_owned(), metadata.clone());
    }
    let lifetime = Duration::from_secs(arguments.lifetime);
    let made = config(&arguments.tokens, None)?.make_token(&own, lifetime);
    print(&made.map_err(|error| format!("cannot make the token: {error}"))?)
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let Secret(token) = &arguments.token;
    let token = match &**token {
        "-" => {
            let read = io::read_to_string(io::stdin());
            read.map_err(|error| format!("cannot read the token from standard input ({error})"))?
        }
        token => token.to_owned(),
    };
    let token = token.trim();
    if let Ok(claims) = dangerous::insecure_decode_claims::<Value>(token) {
        print(&without_controls(&claims.to_string()))?;
    }
    let set = arguments.tokens.key_set().map_err(|(_, failure)| failure)?;
    let fetched = set.map(|set| set.fetch()).transpose()?;
    let fetched = fetched.map(|(_, keys)| keys);
    let checked = config(&arguments.tokens, fetched)?.check_token(token);
    checked.map_err(|error| error.to_string())
}

/// Returns the configuration of a server with these settings and keys of a URL.
fn config(arguments: &TokenArguments, fetched: Option<TokenKeys>) -> Result<Config, Failure> {
    let mut keys = arguments.token_keys().map_err(|(_, failure)| failure)?;
    if let Some(fetched) = fetched {
        keys = keys.and(fetched).map_err(|error| error.to_string())?;
    }
    Ok(arguments.apply(Config::new(), keys))
}

fn print(line: &str) -> Result<(), Failure> {
    let printed = writeln!(io::stdout(), "{line}");
    printed.map_err(|error| format!("cannot print ({error})"))
}

/// Parses a JSON object.
fn object(text: &str) -> Result<Value, &'static str> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        _ => Err("use a JSON object, such as '{\"role\": \"admin\"}'"),
    }
}
