// Runs one kind of tests: `node scripts/test.mjs unit|bundle|image|vm|vm-long [FILE...] [--node-test-option...]`.
// Lists the files itself because `node --test` takes patterns only from Node 21 on.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const kinds = {
  unit: { folder: 'src', options: ['--test-timeout=60000'] },
  // Sets the bundle up, again and again, on disks and from mirrors that fail.
  bundle: { folder: 'test/bundle', options: ['--test-concurrency=1', '--test-timeout=900000'] },
  // Builds a small kernel, which takes some minutes; no part of `npm test`.
  kernel: { folder: 'test/kernel', options: ['--test-concurrency=1', '--test-timeout=3600000'] },
  // Pulls images that the tests make, from a registry that they start.
  image: { folder: 'test/image', options: ['--test-concurrency=1', '--test-timeout=300000'] },
  // Take a program that is not ours: NESTVM_FIRECRACKER names it. Only when asked for.
  firecracker: { folder: 'test/firecracker', options: ['--test-concurrency=1', '--test-timeout=1800000'] },
  // One at a time, since each fills the machine; an emulated stack of three levels takes many minutes.
  vm: { folder: 'test/vm', options: ['--test-concurrency=1', '--test-timeout=3600000'] },
  // The same, of what takes too long to run each time.
  'vm-long': { folder: 'test/vm-long', options: ['--test-concurrency=1', '--test-timeout=3600000'] },
}

process.chdir(new URL('..', import.meta.url).pathname)
const [name, ...rest] = process.argv.slice(2)
const kind = kinds[name]
if (!kind) throw new Error(`say which tests: ${Object.keys(kinds).join(' or ')}`)

const options = rest.filter((argument) => argument.startsWith('-'))
const named = rest.filter((argument) => !argument.startsWith('-'))
const files = named.length > 0 ? named : testFiles(kind.folder)
if (files.length === 0) {
  console.error(`no tests in ${kind.folder}`)
  process.exit(name === 'unit' ? 1 : 0)
}
const dir = mkdtempSync(join(tmpdir(), 'nestvm-causes-'))
const causes = join(dir, 'causes')
const reporters = [
  ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
  ...[`--test-reporter=${import.meta.dirname}/causes.mjs`, `--test-reporter-destination=${causes}`],
]
const { status } = spawnSync(
  process.execPath,
  ['--import', 'tsx', '--test', ...reporters, ...kind.options, ...options, ...files],
  { stdio: 'inherit' },
)
process.stdout.write(readFileSync(causes, 'utf8'))
rmSync(dir, { recursive: true })
process.exit(status ?? 1)

function testFiles(folder) {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => join(folder, file))
    .sort()
}
