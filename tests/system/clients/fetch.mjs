// Fetches a URL ten times, two of them at once, through a proxy, with undici:
//   node fetch.mjs PROXY URL
// Prints the SHA-256 of each body.

import { createHash } from "node:crypto";
import { SocksClient } from "socks";
import { Agent, ProxyAgent, request } from "undici";

const [proxy, url] = process.argv.slice(2);
const { protocol, hostname, port, username, password } = new URL(proxy);

const userId = decodeURIComponent(username); // URL encodes what the route needs as it is

function throughSocks(options, callback) {
  SocksClient.createConnection({
    command: "connect",
    destination: { host: options.hostname, port: Number(options.port || 80) },
    proxy: { host: hostname, port: Number(port), type: 5, userId, password },
  }).then(({ socket }) => callback(null, socket), callback);
}

const dispatcher =
  protocol === "http:" ? new ProxyAgent(proxy) : new Agent({ connect: throughSocks });

async function fetchOnce() {
  const { statusCode, body } = await request(url, { dispatcher });
  const digest = createHash("sha256").update(Buffer.from(await body.arrayBuffer()));
  console.log(statusCode, digest.digest("hex"));
}

for (let round = 0; round < 5; round++) await Promise.all([fetchOnce(), fetchOnce()]);
await dispatcher.close();
