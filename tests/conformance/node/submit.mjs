// Submits a job over a file, waits for its event, and prints its state, its value and an output.
// Usage: node submit.mjs URL CREDENTIALS; by docs/protocol.md, with nothing of lender's.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { jetstream, JetStreamApiError } from "@nats-io/jetstream";
import { connect, credsAuthenticator, headers, nkeys } from "@nats-io/transport-node";

const PIECE = 524_288;
const SUBJECT_TAKEN = 10077;

const [url, file] = process.argv.slice(2);
const creds = readFileSync(file);
const seed = /BEGIN USER NKEY SEED-+\s+(\S+)/.exec(creds.toString())[1];
const pair = nkeys.fromSeed(new TextEncoder().encode(seed));
const me = pair.getPublicKey();
const nc = await connect({
  servers: url,
  authenticator: credsAuthenticator(creds),
  inboxPrefix: `_INBOX_${me}`,
});
const js = jetstream(nc);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function get(stream, subject) {
  const answer = await nc.request(`$JS.API.DIRECT.GET.${stream}.${subject}`, "", { timeout: 5000 });
  return answer.headers?.code === 404 ? null : answer;
}

async function store(name, content) {
  const [digest, week] = [sha256(content), Math.floor(Date.now() / 604_800_000)];
  for (let number = 0; number * PIECE < content.length; number++) {
    const piece = content.subarray(number * PIECE, (number + 1) * PIECE);
    try {
      await js.publish(`blob.${me}.${me}.${digest}.${week}-${number}`, piece);
    } catch (error) {
      if (!(error instanceof JetStreamApiError) || error.code !== SUBJECT_TAKEN) throw error;
    }
  }
  return { name, sha256: digest, size_bytes: content.length, week };
}

async function fetched(ref) {
  const pieces = [];
  for (let number = 0; number * PIECE < ref.size_bytes; number++) {
    const place = `out.${me}.${ref.by}.${ref.sha256}.${ref.week}-${number}`;
    pieces.push((await get(`BLOBS_${me}_OUT`, place)).data);
  }
  const content = Buffer.concat(pieces);
  if (sha256(content) !== ref.sha256) throw new Error("the content is not what was promised");
  return content;
}

async function submitted(spec) {
  const payload = new TextEncoder().encode(JSON.stringify(spec));
  const head = headers();
  head.set("Content-Type", "application/json");
  head.set("Lender-Signature", Buffer.from(pair.sign(payload)).toString("base64url"));
  const events = nc.subscribe(`event.${me}.${spec.id}`);
  await js.publish(`submit.${me}.${spec.id}`, payload, { headers: head }); // the ack: accepted
  const news = events[Symbol.asyncIterator]();
  let next = news.next();
  for (;;) {
    const record = await get("RESULTS", `res.${me}.${spec.id}`);
    if (record) {
      events.unsubscribe();
      return record.json();
    }
    const silence = new Promise((done) => setTimeout(done, 1000, null));
    if (await Promise.race([next, silence])) next = news.next();
  }
}

// Larger than a piece, and than what a value may be inline.
const data = randomBytes(PIECE + 100_000);
const now = Date.now() / 1000;
const terminal = await submitted({
  v: 1,
  id: randomBytes(13).toString("hex"),
  submitter: me,
  workload: "command",
  runtime: "process",
  argv: ["sh", "-c", "sha256sum data.bin >sum.txt; cat data.bin"],
  inputs: [await store("data.bin", data)],
  outputs: ["sum.txt"],
  created_at: now,
  not_after: now + 3600,
});
const { result } = terminal;
const value = result?.value_blob ? await fetched(result.value_blob) : null;
const output = result?.outputs ? (await fetched(result.outputs[0])).toString() : null;
console.log(
  JSON.stringify({
    state: terminal.state,
    value_is_the_input: value?.equals(data) ?? false,
    output_is_its_digest: output === `${sha256(data)}  data.bin\n`,
  }),
);
await nc.drain();
