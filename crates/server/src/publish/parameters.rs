//! The parameters of a publish.

use std::borrow::Cow;
use std::time::Duration;

use crate::access::Access;
use crate::conditions;
use crate::errors::Problem;
use crate::limits::PUBLISH_CHANNELS_MAX;
use crate::parameters;
use pushwheel::{ChannelManager, ClientId, Condition, Request, Target};

/// The parameters of the query.
pub(super) struct Parameters<'a> {
    pub(super) target: Target,
    pub(super) event: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) retry: Option<Duration>,
    /// For conflation.
    pub(super) key: Option<Cow<'a, str>>,
    /// Whether the event removes its key.
    pub(super) removes: bool,
    /// Whether the channel is finished behind the events.
    pub(super) finishes: bool,
    /// Whether the body is the data, whatever its type.
    pub(super) is_raw: Option<bool>,
    /// Whether each line is published when it has arrived.
    pub(super) streams: bool,
    /// The channels of a publish to several, each once.
    pub(super) channels: Vec<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    pub(super) fn of(request: &'a Request, access: &Access) -> Result<Self, Problem> {
        Parameters::read(request, access, false)
    }

    fn read(request: &'a Request, access: &Access, names_channels: bool) -> Result<Self, Problem> {
        let mut parameters = Parameters {
            target: Target::All,
            event: None,
            id: None,
            retry: None,
            key: None,
            removes: false,
            finishes: false,
            is_raw: None,
            streams: false,
            channels: Vec::new(),
        };
        for (name, value) in request.query_pairs() {
            match &*name {
                "channel" if names_channels => parameters.add_channel(value)?,
                "client" => parameters.aim_at(&value)?,
                "event" => parameters.event = Some(value),
                "id" => parameters.id = Some(value),
                "retry" => parameters.retry = Some(retry(&value)?),
                other if access.is_token_parameter(other) => {}
                "key" => parameters.key = Some(value),
                "remove" => parameters.removes = parameters::boolean(&name, &value)?,
                "finish" => parameters.finishes = parameters::boolean(&name, &value)?,
                "stream" => parameters.streams = parameters::boolean(&name, &value)?,
                "raw" => parameters.is_raw = Some(parameters::boolean(&name, &value)?),
                other => match conditions::condition(other, &value)? {
                    Some(condition) => parameters.narrow(condition)?,
                    None => return Err(Problem::unknown_parameter(other)),
                },
            }
        }
        Ok(parameters)
    }

    /// Reads those of a publish to the channels that the query names, or to all. It has no other
    /// target.
    pub(super) fn of_several(request: &'a Request, access: &Access) -> Result<Self, Problem> {
        let parameters = Parameters::read(request, access, true)?;
        match parameters.target == Target::All {
            true if parameters.finishes || parameters.streams => Err(Problem::demand_of_all()),
            true => Ok(parameters),
            false => Err(Problem::target_of_all()),
        }
    }

    fn add_channel(&mut self, name: Cow<'a, str>) -> Result<(), Problem> {
        ChannelManager::check_name(&name)?;
        if !self.channels.contains(&name) {
            self.channels.push(name);
        }
        match self.channels.len() > PUBLISH_CHANNELS_MAX {
            true => Err(Problem::too_many_channels_of_publish()),
            false => Ok(()),
        }
    }

    fn aim_at(&mut self, id: &str) -> Result<(), Problem> {
        if self.target != Target::All {
            return Err(Problem::two_targets());
        }
        let id = ClientId::new(id).map_err(Problem::client_id)?;
        self.target = Target::Client(id);
        Ok(())
    }

    fn narrow(&mut self, condition: Condition) -> Result<(), Problem> {
        match &mut self.target {
            Target::All => self.target = Target::Where(vec![condition]),
            Target::Where(conditions) => conditions::add(conditions, condition)?,
            _ => return Err(Problem::two_targets()),
        }
        Ok(())
    }

    /// Checks that no parameter sets a field of the event, which a body of JSON contains.
    pub(super) fn check_without_event(&self) -> Result<(), Problem> {
        let misplaced = [
            ("event", self.event.is_some()),
            ("id", self.id.is_some()),
            ("retry", self.retry.is_some()),
            ("key", self.key.is_some()),
            ("remove", self.removes),
        ];
        match misplaced.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(Problem::misplaced_parameter(name)),
            None => Ok(()),
        }
    }
}

fn retry(text: &str) -> Result<Duration, Problem> {
    let ms = parameters::whole(text);
    let ms = ms.ok_or_else(|| Problem::parameter("retry", "a whole number of milliseconds"))?;
    Ok(Duration::from_millis(ms))
}
