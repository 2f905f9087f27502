import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { homedir, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { cachePaths, dataPaths, kvmProbePath, machinePaths, runtimeDir, socketDir, socketPath } from './paths.ts'

const variables = ['XDG_DATA_HOME', 'XDG_CACHE_HOME', 'XDG_STATE_HOME', 'XDG_RUNTIME_DIR', 'TMPDIR']
const before = variables.map((name) => process.env[name])
let dir: string

beforeEach(() => {
  for (const name of variables) delete process.env[name]
  dir = mkdtempSync(join(tmpdir(), 'paths-'))
})

afterEach(() => {
  rmSync(dir, { recursive: true })
  for (const [at, name] of variables.entries()) {
    const value = before[at]
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
})

test('directories follow the XDG variables at each call', () => {
  process.env.XDG_DATA_HOME = '/a'
  process.env.XDG_CACHE_HOME = '/b'
  process.env.XDG_STATE_HOME = '/c'
  assert.equal(dataPaths().bundle, '/a/nestvm/bundle')
  assert.equal(cachePaths().snapshots, '/b/nestvm/snapshots')
  assert.equal(kvmProbePath('host'), '/c/nestvm/kvm-probe.json')
  assert.equal(machinePaths('m1').record, '/c/nestvm/machines/m1/record.json')
})

test('without the variables, or with relative ones, directories are under the home directory', () => {
  process.env.XDG_CACHE_HOME = 'relative'
  assert.equal(dataPaths().dir, join(homedir(), '.local/share/nestvm'))
  assert.equal(cachePaths().dir, join(homedir(), '.cache/nestvm'))
})

test('the runtime directory is private', () => {
  process.env.XDG_RUNTIME_DIR = dir
  assert.equal(runtimeDir(), join(dir, 'nestvm'))
  assert.equal(statSync(join(dir, 'nestvm')).mode & 0o777, 0o700)
})

test('without XDG_RUNTIME_DIR, or when it does not exist, the runtime directory is under the temporary one', () => {
  process.env.TMPDIR = dir
  const expected = join(dir, `nestvm-${userInfo().uid}`)
  assert.equal(runtimeDir(), expected)
  process.env.XDG_RUNTIME_DIR = join(dir, 'absent')
  assert.equal(runtimeDir(), expected)
})

test('a runtime directory that others can enter is refused', () => {
  process.env.TMPDIR = dir
  mkdirSync(join(dir, `nestvm-${userInfo().uid}`))
  chmodSync(join(dir, `nestvm-${userInfo().uid}`), 0o711)
  assert.throws(runtimeDir, { code: 'UNSAFE_RUNTIME_DIR' })
})

test('sockets of machines with long ids have short paths of their own', () => {
  process.env.XDG_RUNTIME_DIR = dir
  assert.equal(socketDir('0123456789ab'), join(dir, 'nestvm/0123456789ab'))
  assert.notEqual(socketDir('0123456789abc'), socketDir('0123456789abd'))
  assert.equal(socketDir('0123456789abc').length, socketDir('0123456789ab').length)
})

test('a socket path that the kernel would refuse is an error', () => {
  const long = join(dir, 'x'.repeat(100))
  mkdirSync(long)
  process.env.XDG_RUNTIME_DIR = long
  assert.throws(() => socketPath('m1', 'qmp'), { code: 'SOCKET_PATH_TOO_LONG' })
})

test('an id that leads elsewhere is refused', () => {
  for (const id of ['..', 'a/b', '', '.hidden']) assert.throws(() => machinePaths(id), { code: 'BAD_NAME' })
})
