// A public POSIX file-system test suite on a volume: pjdfstest's Rust version, from crates.io.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import { Home } from './nestvm.ts'

const version = '0.2.2'
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'nestvm-tests', `pjdfstest-${version}`)
const home = new Home()
after(() => home[Symbol.asyncDispose]())

/** Block and character devices are refused, so that each check that begins by making one fails: these, and no others. */
const devices = 86
/** Others, each with its reason in docs/volumes.md. */
const expectedFailures = ['utimensat::utime_omit']

const configuration = `[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nobody"], ["tests", "tests"]]
`

const [, minor = 0] = /^cargo 1\.(\d+)/.exec(spawnSync('cargo', ['--version'], { encoding: 'utf8' }).stdout ?? '') ?? []
const noCargo = Number(minor) >= 85 ? false : 'it needs cargo 1.85, which builds the suite'
const notRoot = process.getuid?.() === 0 ? false : 'users and groups are passed through only by a server that is root'

test('pjdfstest finds on a volume what is documented, and nothing else', { skip: noCargo || notRoot }, async (t) => {
  const outOfReach = getSuite()
  if (outOfReach) return t.skip(outOfReach)
  const share = join(home.dir, 'share')
  const suite = join(home.dir, 'suite')
  for (const dir of [share, suite]) mkdirSync(dir)
  for (const file of programFiles()) copyFileSync(file, join(suite, basename(file)))
  writeFileSync(join(suite, 'pjdfstest.toml'), configuration)
  await home.ok('run', '-d', '--name', 'posix', '-v', `${share}:/volume`, '-v', `${suite}:/suite:ro`)
  const script = `grep -q ^nobody: /etc/group || echo nobody:x:65534: >> /etc/group
echo tests:x:1000:1000::/:/bin/sh >> /etc/passwd; echo tests:x:1000: >> /etc/group
/suite/ld-linux-x86-64.so.2 --library-path /suite /suite/pjdfstest -c /suite/pjdfstest.toml -p /volume`
  const { stdout, stderr } = await home.run(['exec', 'posix', '--', 'sh', '-c', script])
  await home.ok('rm', '-f', 'posix')
  const results = [...stdout.matchAll(/^(\S+::\S+)\s+(ok|skipped|FAILED)$/gm)]
  const named = (result: string) => results.flatMap(([, name, found]) => (found === result ? (name ?? '') : []))
  const ofDevice = (name: string) => /::(block|char)$/.test(name)
  assert.ok(named('ok').length >= 295, `${stdout.slice(-2000)}${stderr.slice(-2000)}`)
  assert.deepEqual(
    named('FAILED').filter((name) => !ofDevice(name)),
    expectedFailures,
  )
  assert.equal(named('FAILED').filter(ofDevice).length, devices)
  assert.deepEqual(named('ok').filter(ofDevice), [])
})

const program = join(cache, 'bin/pjdfstest')

/** Builds the suite, once. Says why where crates.io cannot be reached, which the tests must not depend on. */
function getSuite(): string | undefined {
  if (existsSync(program)) return undefined
  if (spawnSync('cargo', ['info', `pjdfstest@${version}`]).status !== 0) return 'crates.io cannot be reached'
  execFileSync('cargo', ['install', 'pjdfstest', '--version', version, '--locked', '--root', cache], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return undefined
}

/** The suite, and the host's libraries that it needs: the guest has its own. */
function programFiles(): string[] {
  const libraries = execFileSync('ldd', [program], { encoding: 'utf8' })
  return [program, ...[...libraries.matchAll(/(?:=> )?(\/\S+) \(0x/g)].flatMap(([, path]) => path ?? [])]
}
