//! What Kafka's errors mean: kind, whether to try again, and what the operator can do.
//!
//! One table for every call of the sink. librdkafka reports trouble with connections (authentication, TLS, addresses)
//! beside the call that suffers from it, which then only times out; so the client's context keeps the last of those, and
//! [`Trouble::late`] gives it as the reason.

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Message},
    producer::ProducerContext,
};
use seachange_sdk::{Error, Kind, Retry, Side};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

const BROKERS: &str = "see that the brokers run, that this machine reaches the addresses they advertise, and that \
                       kafka.properties.\"security.protocol\" is that of the listener";

/// The first record that Kafka refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub code: Code,
    /// Its topic.
    pub topic: String,
    /// Bytes of key and value.
    pub size: usize,
}

#[derive(Default)]
struct Seen {
    refused: Option<Refused>,
    global: Option<(Code, String, Instant)>,
}

/// The context of every client: logs to tracing, and remembers trouble.
#[derive(Clone, Default)]
pub struct Trouble {
    seen: Arc<Mutex<Seen>>,
    /// Names the pipeline in log lines.
    pipeline: Arc<str>,
}

impl Trouble {
    /// For one pipeline's clients.
    pub fn new(pipeline: &str) -> Trouble {
        Trouble { seen: Arc::default(), pipeline: pipeline.into() }
    }
    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
        // The data are plain values: a panic elsewhere cannot have left them half written.
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// The record that Kafka refused first, if one was.
    pub fn refused(&self) -> Option<Refused> {
        self.with(|s| s.refused.clone())
    }
    /// The newest trouble with connections, while it is new: a client that cannot connect tells so at least every ten
    /// seconds, and what one broker had an hour ago explains nothing.
    fn recent(&self) -> Option<(Code, String)> {
        let (code, reason, at) = self.with(|s| s.global.clone())?;
        (at.elapsed() < Duration::from_secs(15)).then_some((code, reason))
    }
    /// Trouble that waiting does not mend: credentials, certificates.
    pub fn hopeless(&self, what: &str) -> Option<Error> {
        let (code, reason) = self.recent()?;
        let e = from_code(code, format!("{what}: {reason}"));
        (e.kind() == Kind::Auth).then_some(e)
    }
    /// Begins anew.
    pub fn forget(&self) {
        self.with(|s| *s = Seen::default());
    }
    /// A deadline has passed: with the last known reason.
    pub fn late(&self, what: &str) -> Error {
        match self.recent() {
            Some((code, reason)) => {
                let e = from_code(code, format!("{what}: no answer in time; last trouble: {reason}"));
                if e.kind() == Kind::Sink { e.retry(Retry::Backoff) } else { e }
            }
            None => Error::sink(Kind::Connect, format!("{what}: no answer in time")).fix(BROKERS),
        }
    }
    /// A call failed.
    pub fn error(&self, what: &str, e: &KafkaError) -> Error {
        match e {
            // Display would print the property's value.
            KafkaError::ClientConfig(_, _, key, _) => {
                Error::new(Kind::Config, Side::Sink, Retry::Operator, format!("{what}: property {key} is not accepted"))
                    .fix(format!("correct kafka.properties.\"{key}\""))
            }
            KafkaError::ClientCreation(text) => {
                Error::new(Kind::Config, Side::Sink, Retry::Operator, format!("{what}: {text}"))
                    .fix("correct kafka.properties")
            }
            KafkaError::AdminOp(code) => from_code(*code, format!("{what}: {code}")),
            KafkaError::Transaction(t) => {
                let e = from_code(t.code(), format!("{what}: {}", t.string()));
                // A fatal error means that this producer's epoch is over, whatever the code.
                if t.is_fatal() && e.kind() == Kind::Sink { fenced(format!("{what}: {}", t.string())) } else { e }
            }
            e => match e.rdkafka_error_code() {
                Some(code) => from_code(code, format!("{what}: {e}")),
                None => Error::sink(Kind::Sink, format!("{what}: {e}")),
            },
        }
    }
}

fn fenced(what: String) -> Error {
    Error::sink(Kind::Fenced, what).fix(
        "another daemon runs this pipeline, or the transaction outlived transaction_timeout; stop the other one, or \
         give this pipeline another name or kafka cluster prefix",
    )
}

/// What a refused record means for the pipeline.
pub fn refused(r: &Refused, batch_size: usize) -> Error {
    match r.code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            let e = Error::new(
                Kind::Limit,
                Side::Sink,
                Retry::Operator,
                format!("topic {}: a record of {} bytes is larger than Kafka accepts", r.topic, r.size),
            );
            if r.size < batch_size {
                e.fix(format!(
                    "raise the topic's max.message.bytes (and the broker's message.max.bytes), or set \
                     kafka.properties.\"batch.size\" (now {batch_size}) below it"
                ))
            } else {
                e.fix(
                    "raise the topic's max.message.bytes, the broker's message.max.bytes and, above 100 MB, \
                     kafka.properties.\"message.max.bytes\"",
                )
            }
        }
        code => from_code(code, format!("topic {}: record not delivered: {code}", r.topic)),
    }
}

/// The table.
pub fn from_code(code: Code, what: String) -> Error {
    let operator = |kind, fix: &str| Error::new(kind, Side::Sink, Retry::Operator, what.clone()).fix(fix);
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping => {
            fenced(what)
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => operator(
            Kind::Auth,
            "check kafka.properties: security.protocol, sasl.mechanism, sasl.username, sasl.password",
        ),
        Code::SSL => operator(
            Kind::Auth,
            "check kafka.properties: security.protocol, ssl.ca.location, ssl.certificate.location, ssl.key.location; the \
             broker's certificate must name the address in bootstrap",
        ),
        Code::TopicAuthorizationFailed => operator(
            Kind::Auth,
            "grant the principal Write and Describe on the topic (kafka-acls --add --producer --topic NAME), and Read on \
             the state topic",
        ),
        Code::TransactionalIdAuthorizationFailed => operator(
            Kind::Auth,
            "grant the principal Write and Describe on the transactional id (kafka-acls --add --operation Write \
             --operation Describe --transactional-id ID)",
        ),
        Code::ClusterAuthorizationFailed => operator(
            Kind::Auth,
            "grant the principal IdempotentWrite (and Create, unless topics exist already) on the cluster \
             (kafka-acls --add --operation IdempotentWrite --cluster)",
        ),
        Code::GroupAuthorizationFailed => {
            operator(Kind::Auth, "grant the principal Read on the consumer group named like the transactional id")
        }
        Code::InvalidTransactionTimeout => operator(
            Kind::Config,
            "lower the sink's transaction_timeout, or raise the broker's transaction.max.timeout.ms",
        ),
        Code::MessageSizeTooLarge => operator(
            Kind::Limit,
            "raise the topic's max.message.bytes, the broker's message.max.bytes and, above 100 MB, \
             kafka.properties.\"message.max.bytes\"",
        ),
        Code::InvalidRecord => operator(
            Kind::Sink,
            "a compacted topic takes no record without key: give the table a key, exclude it, or set the topic's \
             cleanup.policy to delete",
        ),
        Code::InvalidTopic => operator(
            Kind::Config,
            "topic names have letters, digits, '.', '_' and '-' and at most 249 characters: change topics.name",
        ),
        Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::PolicyViolation => operator(
            Kind::Config,
            "change topics.partitions, topics.replication or topics.settings, or create the topic",
        ),
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::NetworkException
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::LeaderNotAvailable => Error::sink(Kind::Connect, what).fix(BROKERS),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Error::sink(Kind::Sink, what)
            .fix("fewer replicas are in sync than min.insync.replicas asks for: bring the other brokers back"),
        _ => Error::sink(Kind::Sink, what),
    }
}

impl ClientContext for Trouble {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        let pipeline = &*self.pipeline;
        match level {
            // The same properties go to producer, consumer and admin client: each warns of the others' own.
            _ if fac == "CONFWARN" => tracing::debug!(target: "librdkafka", pipeline, fac, "{message}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", pipeline, fac, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", pipeline, fac, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", pipeline, fac, "{message}"),
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes by the same way, and is no trouble.
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            return;
        }
        tracing::warn!(target: "librdkafka", pipeline = &*self.pipeline, "{reason}");
        if let Some(code) = error.rdkafka_error_code() {
            self.with(|s| {
                // "All brokers down" says less than what came before it.
                if code != Code::AllBrokersDown || s.global.is_none() {
                    s.global = Some((code, reason.to_owned(), Instant::now()));
                }
            });
        }
    }
}

impl ConsumerContext for Trouble {}

impl ProducerContext for Trouble {
    type DeliveryOpaque = ();

    /// Only failures arrive here (`delivery.report.only.error`).
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((e, message)) = result else { return };
        let code = e.rdkafka_error_code().unwrap_or(Code::Fail);
        // Thrown away because the transaction fails or is aborted: the call that follows says why.
        if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            return;
        }
        let size = message.payload_len() + message.key_len();
        self.with(|s| match &mut s.refused {
            // A refused batch fails as one: its largest record is the one to name.
            Some(first) if first.code == code && first.topic == message.topic() => first.size = first.size.max(size),
            Some(_) => {}
            slot => *slot = Some(Refused { code, topic: message.topic().to_owned(), size }),
        });
    }
}
