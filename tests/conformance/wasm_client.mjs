// What a JavaScript client does on any released runtime: `node wasm_client.mjs ws://endpoint NODE_MODULES` prints what it
// saw as one JSON object. Judging is the caller's (test_wasm_runtimes.py). Amounts are strings of rao.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [endpoint, modules] = process.argv.slice(2);
const { ApiPromise, Keyring, WsProvider } = createRequire(join(modules, 'x.js'))('@polkadot/api');

const TAO = 1_000_000_000n;

const api = await ApiPromise.create({ provider: new WsProvider(endpoint), noInitWarn: true, throwOnConnect: true });
const keyring = new Keyring({ type: 'sr25519', ss58Format: 42 });
const [alice, nobody] = ['//Alice', '//wasm//nobody'].map((uri) => keyring.addFromUri(uri));

const heads = await new Promise((resolve, reject) => {
  const seen = [];
  const stopping = api.rpc.chain.subscribeNewHeads((head) => {
    seen.push(head);
    if (seen.length === 3) stopping.then((stop) => (stop(), resolve(seen)));
  });
  stopping.catch(reject);
});
const last = heads[2];

const transfer = await new Promise((resolve, reject) => {
  const states = [];
  api.tx.balances
    .transferKeepAlive(nobody.address, 2n * TAO)
    .signAndSend(alice, ({ status, events, dispatchError }) => {
      states.push(status.type);
      if (status.isFinalized) {
        const named = events.map(({ event }) => `${event.section}.${event.method}`);
        resolve({ states, events: named, error: dispatchError?.toString() ?? null });
      } else if (status.isError) reject(new Error(`the extrinsic became ${status.type}`));
    })
    .catch(reject);
});

console.log(
  JSON.stringify({
    spec: api.runtimeVersion.specVersion.toNumber(),
    extrinsic: api.extrinsicVersion,
    heads: heads.map((head) => head.number.toNumber()),
    hashes: [last.hash.toHex(), (await api.rpc.chain.getBlockHash(last.number.unwrap())).toHex()],
    accounts: (await api.query.system.account.entries()).length,
    issued: (await api.query.balances.totalIssuance()).toString(),
    balance: (await api.query.system.account(nobody.address)).data.free.toString(),
    transfer,
  }),
);
await api.disconnect();
