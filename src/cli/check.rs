//! `seachange check`: what can be known before anything runs.
//!
//! Changes nothing: topics are asked for with `validate_only`, the transactional id is left alone (a running daemon would be
//! fenced). Every check runs, whatever the ones before it found, except those that need an answer from Kafka when there
//! is none. Nothing waits longer than [`DEADLINE`].

use super::{Failure, block_on};
use crate::{
    config::{
        Config,
        resolved::{Kafka, KafkaSink, Pipeline, Sink},
    },
    sink::properties,
};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::DeliveryResult,
    metadata::Metadata,
    producer::{BaseProducer, Producer, ProducerContext},
    types::RDKafkaErrorCode as Code,
};
use seachange_sdk::{
    Check,
    Outcome::{self, Fail, Pass, Warn},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// For each question to Kafka.
const DEADLINE: Duration = Duration::from_secs(10);
/// For all of a database's checks together.
const SOURCE_DEADLINE: Duration = Duration::from_secs(60);

struct Section {
    title: String,
    checks: Vec<Check>,
}

pub(super) fn check(config: Config) -> Result<(), Failure> {
    let sections = block_on(async {
        let brokers = match &config.kafka {
            Some(kafka) => Some(Brokers::ask(kafka).await),
            None => None,
        };
        let mut sections = Vec::new();
        if let (Some(b), Some(k)) = (&brokers, &config.kafka) {
            sections.push(Section { title: format!("kafka {}", k.bootstrap), checks: b.checks.clone() });
        }
        for p in &config.pipelines {
            let mut checks = match tokio::time::timeout(SOURCE_DEADLINE, p.source.check()).await {
                Ok(checks) => checks,
                Err(_) => vec![one(
                    "source",
                    Fail(
                        format!("no answer within {} s", SOURCE_DEADLINE.as_secs()),
                        "look whether the database is reachable and answers queries".into(),
                    ),
                )],
            };
            if let (Sink::Kafka(sink), Some(b)) = (&p.sink, &brokers) {
                checks.extend(b.pipeline(p, sink).await);
            }
            sections.push(Section { title: format!("pipeline {} ({})", p.name, p.source.describe()), checks });
        }
        sections
    })?;
    let (text, failures) = render(&sections);
    print!("{text}");
    match failures {
        0 => Ok(()),
        1 => Err(Failure::Run("1 check failed".into())),
        n => Err(Failure::Run(format!("{n} checks failed"))),
    }
}

/// The list for a person, and how many checks failed.
fn render(sections: &[Section]) -> (String, usize) {
    let mut out = String::new();
    let (mut passed, mut warned, mut failed) = (0, 0, 0);
    for s in sections {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{}", s.title);
        for c in &s.checks {
            let (mark, what, fix, count) = match &c.outcome {
                Pass(what) => ("✓", what, None, &mut passed),
                Warn(what, fix) => ("!", what, Some(fix), &mut warned),
                Fail(what, fix) => ("✗", what, Some(fix), &mut failed),
            };
            *count += 1;
            let _ = writeln!(out, "  {mark} {}: {what}", c.name);
            for line in fix.into_iter().flat_map(|f| f.lines()) {
                let _ = writeln!(out, "      {line}");
            }
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{passed} passed, {warned} to know about, {failed} failed");
    (out, failed)
}

fn one(name: impl Into<String>, outcome: Outcome) -> Check {
    Check { name: name.into(), outcome }
}

/// Keeps what librdkafka reports while it tries: the reason stands there, not in the error that a question returns.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Option<String>>>);

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, error: KafkaError, reason: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than why the first one is.
        if heard.is_none() || error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            *heard = Some(reason.to_owned());
        }
    }
}
impl ProducerContext for Listener {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Asks for all brokers and topics. `Err` holds the reason, as well as it is known.
fn metadata(client: &ClientConfig) -> Result<Metadata, String> {
    let heard = Listener::default();
    let asker: BaseProducer<Listener> =
        BaseProducer::from_config_and_context(client, heard.clone()).map_err(|e| e.to_string())?;
    asker.client().fetch_metadata(None, DEADLINE).map_err(|e| {
        // Reports wait in a queue until somebody polls; no message is on its way, so one round is enough.
        asker.poll(Duration::from_millis(100));
        heard.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(e.to_string())
    })
}

/// What Kafka has answered.
struct Brokers {
    checks: Vec<Check>,
    admin: Option<Arc<AdminClient<Listener>>>,
    count: usize,
    /// Partitions by topic.
    topics: BTreeMap<String, usize>,
    /// Settings of one broker; empty when they may not be read.
    settings: BTreeMap<String, String>,
}

impl Brokers {
    async fn ask(kafka: &Kafka) -> Brokers {
        let mut b =
            Brokers { checks: vec![], admin: None, count: 0, topics: BTreeMap::new(), settings: BTreeMap::new() };
        let mut client: ClientConfig = properties::client(kafka);
        client.set_log_level(RDKafkaLogLevel::Error);
        let admin = match AdminClient::from_config_and_context(&client, Listener::default()) {
            Ok(admin) => Arc::new(admin),
            Err(e) => {
                // The error names the property; its value, which it may repeat, could be a secret.
                let what = match &e {
                    KafkaError::ClientConfig(_, _, name, _) if !name.is_empty() => {
                        format!("librdkafka does not accept the property {name}")
                    }
                    _ => "librdkafka does not accept these properties together".into(),
                };
                let fix = "mend kafka.properties; librdkafka's CONFIGURATION.md lists what there is";
                b.checks.push(one("properties", Fail(what, fix.into())));
                return b;
            }
        };
        let answer = tokio::task::spawn_blocking(move || metadata(&client)).await;
        match answer.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(found) => {
                b.know(&found);
                if let Some(first) = found.brokers().first() {
                    b.read_settings(&admin, first.id()).await;
                }
            }
            Err(reason) => {
                let fix = "look at kafka.bootstrap, the network, and TLS and SASL in kafka.properties";
                let what = format!("no answer within {} s: {reason}", DEADLINE.as_secs());
                b.checks.push(one("brokers", Fail(what, fix.into())));
                return b;
            }
        }
        b.transactions();
        b.admin = Some(admin);
        b
    }

    fn know(&mut self, metadata: &Metadata) {
        self.count = metadata.brokers().len();
        self.topics = metadata.topics().iter().map(|t| (t.name().to_owned(), t.partitions().len())).collect();
        let names: Vec<String> = metadata.brokers().iter().map(|b| format!("{}:{}", b.host(), b.port())).collect();
        let what = format!("{}: {}", self.count, names.join(", "));
        self.checks.push(one("brokers", Pass(what)));
    }

    async fn read_settings(&mut self, admin: &AdminClient<Listener>, broker: i32) {
        let options = AdminOptions::new().request_timeout(Some(DEADLINE));
        let answer = admin.describe_configs(&[ResourceSpecifier::Broker(broker)], &options).await;
        if let Some(Ok(found)) = answer.ok().and_then(|a| a.into_iter().next()) {
            self.settings = found.entries.into_iter().filter_map(|e| Some((e.name, e.value?))).collect();
        }
    }

    fn number(&self, setting: &str) -> Option<u64> {
        self.settings.get(setting)?.parse().ok()
    }

    /// Can transactions work, as far as the brokers' settings say?
    fn transactions(&mut self) {
        const LOG: &str = "__transaction_state";
        let wanted = self.number("transaction.state.log.replication.factor");
        let outcome = match wanted {
            None => Warn(
                "the brokers' settings cannot be read: whether transactions work will be seen at start".into(),
                "allow DescribeConfigs on the cluster to have it checked".into(),
            ),
            Some(_) if self.topics.contains_key(LOG) => Pass("the transaction log is there".into()),
            Some(n) if n > self.count as u64 => Fail(
                format!("the transaction log wants {n} replicas and there are {} brokers", self.count),
                format!(
                    "start more brokers, or set transaction.state.log.replication.factor={} and \
                     transaction.state.log.min.isr=1 on the broker",
                    self.count
                ),
            ),
            Some(n) => Pass(format!("the transaction log will be made, with {n} replica(s)")),
        };
        self.checks.push(one("transactions", outcome));
    }

    /// Checks of one pipeline's topics and transactions.
    async fn pipeline(&self, p: &Pipeline, sink: &KafkaSink) -> Vec<Check> {
        let Some(admin) = &self.admin else { return vec![] };
        let mut checks = Vec::new();
        let timeout = sink.transaction_timeout.as_millis();
        if let Some(max) = self.number("transaction.max.timeout.ms")
            && timeout > u128::from(max)
        {
            checks.push(one(
                "transaction timeout",
                Fail(
                    format!("sink.transaction_timeout is {timeout} ms and the brokers allow {max} ms"),
                    "shorten it, or raise transaction.max.timeout.ms on the brokers".into(),
                ),
            ));
        }
        let state = sink.state_topic(&p.name);
        checks.push(one(format!("state topic {state}"), self.state_topic(admin, p, &state).await));
        let mut topic = p.topics.name.clone();
        for (name, value) in [("pipeline", p.name.as_str()), ("database", &p.source.database())] {
            topic = topic.replace(&format!("{{{name}}}"), value);
        }
        // A name of the kind that would be made, so that rules by prefix apply.
        let topic = topic.replace("{schema}", "seachange").replace("{table}", "check");
        let settings: Vec<(&str, &str)> = p.topics.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let outcome = match self.may_create(admin, p, &topic, p.topics.partitions, &settings).await {
            Ok(()) => Pass(format!("may be made, with {} partition(s)", p.topics.partitions)),
            Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => Warn(
                format!("topics like {topic} may not be made by this account"),
                "make the topics of all tables beforehand, or allow Create on them".into(),
            ),
            Err(code) => refused(code),
        };
        checks.push(one("data topics", outcome));
        checks
    }

    async fn state_topic(&self, admin: &AdminClient<Listener>, p: &Pipeline, topic: &str) -> Outcome {
        match self.topics.get(topic) {
            Some(1) => {}
            Some(n) => {
                return Fail(
                    format!("has {n} partitions: the order of what is stored would be lost"),
                    "delete it while the pipeline is stopped; it is made again, and the pipeline starts anew".into(),
                );
            }
            None => {
                return match self.may_create(admin, p, topic, 1, &[("cleanup.policy", "compact")]).await {
                    Ok(()) => Pass("not there yet; will be made".into()),
                    Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => Fail(
                        "is not there and may not be made by this account".into(),
                        format!(
                            "kafka-topics.sh --create --topic {topic} --partitions 1 --config cleanup.policy=compact"
                        ),
                    ),
                    Err(code) => refused(code),
                };
            }
        }
        let options = AdminOptions::new().request_timeout(Some(DEADLINE));
        let answer = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
        let policy = answer
            .ok()
            .and_then(|a| a.into_iter().next()?.ok())
            .and_then(|r| r.get("cleanup.policy").and_then(|e| e.value.clone()));
        match policy.as_deref() {
            Some("compact") => Pass("is there".into()),
            Some(other) => Fail(
                format!("has cleanup.policy={other}: what is stored would be deleted with age"),
                format!(
                    "kafka-configs.sh --alter --entity-type topics --entity-name {topic} \
                     --add-config cleanup.policy=compact"
                ),
            ),
            None => Warn(
                "is there; its settings cannot be read".into(),
                "see to it that it has cleanup.policy=compact".into(),
            ),
        }
    }

    /// Would Kafka make this topic?
    async fn may_create(
        &self,
        admin: &AdminClient<Listener>,
        p: &Pipeline,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), Code> {
        let new = settings.iter().fold(
            NewTopic::new(topic, partitions, TopicReplication::Fixed(p.topics.replication.unwrap_or(-1))),
            |t, (k, v)| t.set(k, v),
        );
        let options = AdminOptions::new().request_timeout(Some(DEADLINE)).validate_only(true);
        match admin.create_topics([&new], &options).await {
            Ok(answers) => match answers.into_iter().next() {
                Some(Err((_, Code::TopicAlreadyExists))) | Some(Ok(_)) | None => Ok(()),
                Some(Err((_, code))) => Err(code),
            },
            Err(e) => Err(e.rdkafka_error_code().unwrap_or(Code::Fail)),
        }
    }
}

/// Why Kafka would not make a topic.
fn refused(code: Code) -> Outcome {
    let fix = match code {
        Code::InvalidReplicationFactor => "lower topics.replication, or start more brokers",
        Code::InvalidConfig => "mend topics.settings: one of them is no topic setting, or its value is not possible",
        Code::InvalidPartitions => "lower topics.partitions",
        Code::PolicyViolation => "the cluster has a rule for new topics: make the topics as it wants them",
        Code::InvalidTopic => "change topics.name: the name is too long or has characters that Kafka does not allow",
        _ => "look into the broker's log",
    };
    Fail(format!("Kafka would not make it: {code}"), fix.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_list_for_people() {
        let checks = vec![
            one("wal_level", Pass("logical".into())),
            one("table a.b", Warn("has no key".into(), "ALTER TABLE a.b\n  ADD PRIMARY KEY (id);".into())),
            one("role", Fail("may not replicate".into(), "ALTER ROLE cdc REPLICATION;".into())),
        ];
        let (text, failed) = render(&[Section { title: "pipeline shop (x)".into(), checks }]);
        assert_eq!(failed, 1);
        assert_eq!(
            text,
            "pipeline shop (x)\n  ✓ wal_level: logical\n  ! table a.b: has no key\n      ALTER TABLE a.b\n        ADD PRIMARY \
             KEY (id);\n  ✗ role: may not replicate\n      ALTER ROLE cdc REPLICATION;\n\n1 passed, 1 to know about, 1 failed\n"
        );
    }
}
