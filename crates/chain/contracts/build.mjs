// Compiles src/*.sol into artifacts/*.json; with --check compares instead, byte for byte, and writes nothing.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(import.meta.url)('solc');

/** What is deployed, and the most bytes of code that it may have at run time. */
const contracts = {
    AmpToken: 24576,
    CollateralManager: 16384,
    InPlaceStrategy: 4096,
    InterfaceRegistry: 4096,
    PoolStrategy: 4096,
    SwapToken: 4096,
    TestReceiver: 4096,
    Timelock: 4096,
};

const names = readdirSync(join(here, 'src')).filter((name) => name.endsWith('.sol')).sort();
const sources = Object.fromEntries(names.map((name) => [name, readFileSync(join(here, 'src', name), 'utf8')]));

const hash = createHash('sha256');
for (const name of names) hash.update(`${name}\0${sources[name]}\0`);
const sourceHash = hash.digest('hex');

const settings = {
    viaIR: true,
    optimizer: { enabled: true, runs: 200 },
    evmVersion: 'cancun',
    metadata: { appendCBOR: false, bytecodeHash: 'none' },
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object'] } },
};
const input = {
    language: 'Solidity',
    sources: Object.fromEntries(names.map((name) => [name, { content: sources[name] }])),
    settings,
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const faults = output.errors ?? [];
for (const fault of faults) console.error(fault.formattedMessage);
if (faults.length > 0) process.exit(1);

const check = process.argv.includes('--check');
let wrong = 0;
mkdirSync(join(here, 'artifacts'), { recursive: true });
for (const [name, bytesMax] of Object.entries(contracts)) {
    const { abi, evm } = output.contracts[`${name}.sol`][name];
    const bytes = evm.deployedBytecode.object.length / 2;
    const artifact = {
        contract: name,
        compiler: solc.version(),
        sourceHash,
        runtimeBytes: bytes,
        bytecode: `0x${evm.bytecode.object}`,
        abi,
    };
    const text = `${JSON.stringify(artifact, null, 1)}\n`;
    const path = join(here, 'artifacts', `${name}.json`);
    const isSame = existsSync(path) && readFileSync(path, 'utf8') === text;
    if (!check && !isSame) writeFileSync(path, text);
    const verdict = bytes > bytesMax ? 'TOO LARGE' : check && !isSame ? 'DIFFERS' : 'ok';
    if (verdict !== 'ok') wrong += 1;
    console.log(`${name.padEnd(20)} ${String(bytes).padStart(6)} bytes at run time, at most ${bytesMax}  ${verdict}`);
}
process.exit(wrong === 0 ? 0 : 1);
