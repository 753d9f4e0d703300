// What a JavaScript client does to a chain: `node client.mjs ws://endpoint NODE_MODULES` prints what it saw as one JSON
// object, a key for each step of STEPS. Judging is the caller's (test_polkadot.py). Amounts are strings of rao.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [endpoint, modules] = process.argv.slice(2);
const { ApiPromise, HttpProvider, Keyring, WsProvider } = createRequire(join(modules, 'x.js'))('@polkadot/api');

const TAO = 1_000_000_000n;
const DEADLINE = 40_000; // ms for everything

/** The first `count` values that a subscription delivers. */
const take = (count, subscribe) =>
  new Promise((resolve, reject) => {
    const seen = [];
    let stop;
    subscribe((value) => {
      seen.push(value);
      if (seen.length === count) {
        resolve(seen);
        stop?.();
      }
    })
      .then((unsubscribe) => {
        stop = unsubscribe;
        if (seen.length >= count) unsubscribe();
      })
      .catch(reject);
  });

/** Sign, send, follow to the end: states passed, events by name, the name of the dispatch error if there was one. */
const follow = (api, tx, signer, options = {}) =>
  new Promise((resolve, reject) => {
    const states = [];
    tx.signAndSend(signer, options, ({ status, events, dispatchError }) => {
      states.push(status.type);
      if (status.isFinalized) {
        const module = dispatchError?.isModule ? api.registry.findMetaError(dispatchError.asModule) : undefined;
        const paid = events.find(({ event }) => api.events.transactionPayment.TransactionFeePaid.is(event));
        resolve({
          states,
          block: status.asFinalized.toHex(),
          events: events.map(({ event }) => `${event.section}.${event.method}`),
          error: module ? `${module.section}.${module.name}` : (dispatchError?.toString() ?? null),
          fee: paid?.event.data[1].toString(),
        });
      } else if (status.isError) {
        reject(new Error(`the extrinsic became ${status.type}`));
      }
    }).catch(reject);
  });

/** The text a call is refused with. */
const refusal = async (work) => {
  try {
    await work;
  } catch (error) {
    return error.message;
  }
  return null;
};

const STEPS = {
  async identity({ api }) {
    const v14 = await api.rpc.state.getMetadata();
    return {
      spec: api.runtimeVersion.specVersion.toNumber(),
      metadata: [api.runtimeMetadata.version, v14.version],
      pallets: [api.runtimeMetadata.asLatest.pallets.length, v14.asLatest.pallets.length],
      chain: (await api.rpc.system.chain()).toString(),
      properties: (await api.rpc.system.properties()).toHuman(),
      deposit: api.consts.balances.existentialDeposit.toString(),
    };
  },

  /** The hash of a header is computed here from its decoded fields. */
  async heads({ api }) {
    const heads = await take(3, (callback) => api.rpc.chain.subscribeNewHeads(callback));
    const [finalized] = await take(1, (callback) => api.rpc.chain.subscribeFinalizedHeads(callback));
    const last = heads[heads.length - 1];
    return {
      numbers: heads.map((head) => head.number.toNumber()),
      hashes: heads.map((head) => head.hash.toHex()),
      parents: heads.map((head) => head.parentHash.toHex()),
      recorded: (await api.rpc.chain.getBlockHash(last.number.toNumber())).toHex(),
      finalized: finalized.number.toNumber(),
    };
  },

  async storage({ api }) {
    const times = await take(3, (callback) => api.query.timestamp.now(callback));
    const networks = await api.query.subtensorModule.networksAdded.entries();
    const tempos = await api.query.subtensorModule.tempo.multi([0, 1]);
    const genesis = await api.at(await api.rpc.chain.getBlockHash(0));
    return {
      times: times.map((time) => time.toNumber()),
      networks: networks.map(([key, value]) => [key.args[0].toNumber(), value.isTrue]),
      tempos: tempos.map((tempo) => tempo.toNumber()),
      atGenesis: (await genesis.query.system.number()).toNumber(),
      missing: (await api.query.subtensorModule.subnetOwner(60_000)).toString(),
    };
  },

  async runtime({ api }) {
    const metagraph = await api.call.subnetInfoRuntimeApi.getMetagraph(1);
    return {
      netuid: metagraph.unwrap().netuid.toNumber(),
      hotkeys: metagraph.unwrap().hotkeys.length,
      price: (await api.call.swapRuntimeApi.currentAlphaPrice(1)).toString(),
      absent: (await api.call.subnetInfoRuntimeApi.getMetagraph(60_000)).isNone,
    };
  },

  async transfer({ api, alice, someone }) {
    const tx = api.tx.balances.transferKeepAlive(someone.address, TAO);
    const info = await tx.paymentInfo(alice);
    const balances = take(2, (callback) => api.query.system.account(someone.address, callback));
    const outcome = await follow(api, tx, alice);
    const block = await api.rpc.chain.getBlock(outcome.block);
    return {
      ...outcome,
      quoted: info.partialFee.toString(),
      weight: info.weight.refTime.toString(),
      balances: (await balances).map((account) => account.data.free.toString()),
      included: block.block.extrinsics.some((included) => included.method.hash.eq(tx.method.hash)),
    };
  },

  async failures({ api, alice, someone, stranger }) {
    const payable = api.tx.balances.transferKeepAlive(alice.address, TAO);
    const beyond = api.tx.balances.transferKeepAlive(alice.address, 2n * 10n ** 15n);
    const owned = api.tx.subtensorModule.setSubnetIdentity(1, '', '', '', '', '', '', '', '');
    return {
      dispatched: await follow(api, owned, someone),
      batched: await follow(api, api.tx.utility.batchAll([payable, beyond]), alice),
      stale: await refusal(payable.signAndSend(alice, { nonce: 0 })),
      penniless: await refusal(payable.signAndSend(stranger)),
      unknown: await refusal(api.rpc.chain.getHeader(`0x${'5a'.repeat(32)}`).then((header) => header.number)),
    };
  },

  async post({ api }) {
    const http = new ApiPromise({ provider: new HttpProvider(endpoint.replace(/^ws/, 'http')), noInitWarn: true });
    await http.isReady;
    return { genesis: [http.genesisHash.toHex(), api.genesisHash.toHex()] };
  },
};

setTimeout(() => {
  console.error(`not done after ${DEADLINE} ms`);
  process.exit(2);
}, DEADLINE).unref();
const provider = new WsProvider(endpoint, 100);
const api = await ApiPromise.create({ provider, noInitWarn: true });
const keyring = new Keyring({ type: 'sr25519', ss58Format: 42 });
const [alice, someone, stranger] = ['//Alice', `//js-${Date.now()}`, `//js-${Date.now()}//2`].map((uri) =>
  keyring.addFromUri(uri),
);
const seen = {};
for (const [name, step] of Object.entries(STEPS)) {
  seen[name] = await step({ api, alice, someone, stranger });
}
await api.disconnect();
console.log(JSON.stringify(seen));
process.exit(0);
