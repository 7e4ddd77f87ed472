//! The serial line and the screen in a real browser, by `consoles.mjs`.

use crate::report::{Figure, Limit};
use crate::site::Site;
use crate::stats::Sample;
use crate::{Result, Size, clone};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use server::cli::serve::link_url;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const VM: &str = "looked-at";
/// How often its screen changes, in ticks a second.
const FRAMES: f64 = 5.0;
/// The most that the frames may differ from that.
const OFF_BY: f64 = 1.0;

/// Takes both figures.
pub async fn take(site: &Site, size: Size) -> Result<Vec<Figure>> {
    let tick = format!("tick: {FRAMES}\n");
    clone::create(site, VM, "demo", 128, json!({ "metaData": tick })).await?;
    let link = site.running.first_link.as_ref().ok_or("no first link")?;
    let mut browser = Browser::start(&[
        &site.url,
        &link_url(&site.running.server.config, site.running.address, link),
        VM,
    ])?;
    let seconds = size.pick(30, 5);
    let screen = screen(&mut browser, Duration::from_secs(seconds)).await;
    let echo = match &screen {
        Ok(_) => {
            browser
                .ask::<Vec<f64>>(&format!("echo {}", size.pick(200, 20)))
                .await
        }
        Err(_) => Ok(Vec::new()),
    };
    // What it had to say says more than the pipe that it closed.
    let (screen, echo) = match (screen, echo) {
        (Ok(screen), Ok(echo)) => (screen, echo),
        (Err(e), _) | (_, Err(e)) => return Err(format!("{e}: {}", browser.last_words().await?).into()),
    };
    clone::stop(site, VM).await?;
    let echo: Sample = echo.into_iter().collect();
    Ok(vec![
        Figure::new(
            "serialEchoP95Ms",
            echo.percentile(0.95),
            Limit::AtMost(50.0),
            format!(
                "{} keys, from the browser's key event to the row as it is painted: median {:.1}, {}",
                echo.len(),
                echo.median(),
                echo.range(1)
            ),
        ),
        screen,
    ])
}

/// What this process, which is the server, takes of a core while one viewer sees the screen, and while nobody does.
async fn screen(browser: &mut Browser, span: Duration) -> Result<Figure> {
    let idle = busy(async {
        tokio::time::sleep(span).await;
        Ok(())
    })
    .await?
    .0;
    browser.ask::<()>("look").await?;
    let (percent, frames) = busy(browser.ask::<f64>(&format!("frames {}", span.as_millis()))).await?;
    let mut figure = Figure::new(
        "screenCpuPercent",
        percent,
        Limit::AtMost(3.0),
        format!(
            "of one core, over {} s with {frames:.1} frames a second; {idle:.1} with nobody looking",
            span.as_secs()
        ),
    );
    if (frames - FRAMES).abs() > OFF_BY {
        figure.void = Some(format!("{frames:.1} frames a second, must be {FRAMES}"));
    }
    Ok(figure)
}

/// How much of one core this process takes meanwhile, in percent.
async fn busy<T>(work: impl Future<Output = Result<T>>) -> Result<(f64, T)> {
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.try_into().unwrap_or_default(),
        )
    };
    let (begin, before) = (Instant::now(), used());
    let done = work.await?;
    let share = (used() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    Ok((100.0 * share, done))
}

/// `consoles.mjs`: a line for each question, a line for each answer.
struct Browser {
    child: Child,
    questions: ChildStdin,
    answers: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new("node")
            .arg(crate::here().join("consoles.mjs"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            questions: child.stdin.take().ok_or("no standard input")?,
            answers: BufReader::new(child.stdout.take().ok_or("no standard output")?).lines(),
            child,
        })
    }

    async fn ask<T: serde::de::DeserializeOwned>(&mut self, question: &str) -> Result<T> {
        self.questions
            .write_all(format!("{question}\n").as_bytes())
            .await?;
        let answer = self.answers.next_line().await?;
        let answer = answer.ok_or_else(|| format!("consoles.mjs has ended at {question:?}"))?;
        Ok(serde_json::from_str(&answer)?)
    }

    async fn last_words(mut self) -> Result<String> {
        drop(self.questions);
        let mut text = String::new();
        if let Some(mut said) = self.child.stderr.take() {
            said.read_to_string(&mut text).await?;
        }
        Ok(text)
    }
}
