import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { engineFiles } from '../engine/qemu/argv.ts'
import { LocalMachine } from '../machine/local.ts'
import { passtFiles } from '../network/passt.ts'
import { machinePaths, socketDir, statePaths } from '../store/paths.ts'
import { isAlive, processIdentity } from '../store/process.ts'
import { Context } from './context.ts'
import { endEngine } from './engine-process.ts'
import { deadProcess, exampleRecord, exampleStack } from './example-record.ts'
import { thisHost } from './host.ts'
import { reap } from './reap.ts'
import { type GuestRecord, listRecords, saveRecord } from './record.ts'

const variables = ['XDG_STATE_HOME', 'XDG_RUNTIME_DIR']
const before = variables.map((name) => process.env[name])
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'reap-'))
  for (const name of variables) process.env[name] = dir
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  for (const [at, name] of variables.entries()) {
    const value = before[at]
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
})

const context = () => new Context(new AbortController().signal)
const alive = () => processIdentity(process.pid) ?? assert.fail()

/** A level 1 guest as a command would have left it on this host. */
async function leave(id: string, fields: Partial<GuestRecord>): Promise<GuestRecord> {
  const engineDir = machinePaths(id).engine
  const record = exampleRecord(id, {
    engineDir,
    socketDir: socketDir(id),
    sshSocket: join(socketDir(id), 'ssh'),
    ...fields,
  })
  mkdirSync(socketDir(id), { recursive: true })
  mkdirSync(engineDir, { recursive: true })
  writeFileSync(record.sshSocket, '')
  await saveRecord(record)
  return record
}

test('a guest whose owner was killed is removed with its sockets', async () => {
  await leave('orphan', { owner: deadProcess, detached: false })
  await reap(context())
  assert.deepEqual(await listRecords(), [])
  assert.ok(!existsSync(machinePaths('orphan').dir))
  assert.ok(!existsSync(socketDir('orphan')))
})

test('an engine that was started but not yet recorded is ended with its guest', async () => {
  const { pidFile, engineLog } = engineFiles(machinePaths('early').engine)
  const log = join(dir, 'log')
  for (const words of [
    ['qemu', '-pidfile', pidFile],
    ['firecracker', '--log-path', engineLog],
  ]) {
    const argv = ['sh', '-c', 'sleep 60; true', ...words]
    const engine = await new LocalMachine().spawn(argv, { detach: { log, stays: true } })
    const identity = processIdentity(engine.pid ?? assert.fail()) ?? assert.fail()
    await leave('early', { owner: deadProcess, phase: 'starting' })
    await reap(context())
    const limit = performance.now() + 5000
    while (isAlive(identity) && performance.now() < limit) await sleep(10)
    assert.ok(!isAlive(identity))
  }
})

test('what waited to lead a guest of another host out is ended with it, whatever the name of its directory', async () => {
  const engineDir = join(dir, 'a^b [c] $d')
  mkdirSync(engineDir)
  const { pidFile } = passtFiles(engineDir, engineDir)
  const local = new LocalMachine()
  const passt = await local.spawn(['sh', '-c', 'read x', 'passt', '-P', pidFile])
  const there = context()
  const host = await there.hostNamed(thisHost)
  there.hostNamed = async () => host
  await endEngine(there, exampleRecord('far', { host: 'ssh://there', engineDir }))
  assert.deepEqual(await passt.exited, { code: null, signal: 'SIGTERM' })
  assert.ok(!existsSync(engineDir))
})

test('the sockets of a guest that was started with another runtime directory go with it', async () => {
  const record = await leave('moved', { owner: deadProcess })
  process.env.XDG_RUNTIME_DIR = join(dir, 'machines')
  await reap(context())
  assert.ok(!existsSync(record.socketDir))
})

test('a machine whose record is there but cannot be read is left alone', async () => {
  await leave('unread', { engineProcess: alive() })
  const { record } = machinePaths('unread')
  // As root too, reading a directory is an error.
  rmSync(record)
  mkdirSync(record)
  await reap(context())
  assert.ok(existsSync(record))
})

test('guests of a living owner, and detached guests that run, are kept', async () => {
  await leave('owned', { owner: alive(), phase: 'starting', detached: false })
  await leave('detached', { engineProcess: alive() })
  await reap(context())
  assert.deepEqual((await listRecords()).map(({ id, phase }) => [id, phase]).sort(), [
    ['detached', 'running'],
    ['owned', 'starting'],
  ])
  assert.ok(existsSync(join(socketDir('owned'), 'ssh')))
})

test('a directory that was half made is removed, and a file that was half written', async () => {
  await leave('good', { engineProcess: alive() })
  mkdirSync(machinePaths('half').dir)
  mkdirSync(machinePaths('broken').dir)
  writeFileSync(machinePaths('broken').record, '{"schema":')
  await reap(context())
  assert.ok(!existsSync(machinePaths('half').dir))
  assert.ok(!existsSync(machinePaths('broken').dir))
  assert.ok(existsSync(machinePaths('good').record))
  assert.ok(!existsSync(statePaths().lock))
})

test('what a command was killed in the midst of removing is removed', async () => {
  const doomed = join(statePaths().machines, `.gone.${deadProcess.pid}.0123abcd.tmp`)
  mkdirSync(doomed, { recursive: true })
  await reap(context())
  assert.ok(!existsSync(doomed))
})

test('a detached guest that has ended keeps its output and tells its exit status', async () => {
  const { engineDir } = await leave('job', { engineProcess: deadProcess, command: ['make'] })
  const { exitStatus, output } = engineFiles(engineDir)
  mkdirSync(dirname(exitStatus), { recursive: true })
  writeFileSync(exitStatus, '7\n')
  writeFileSync(output, 'said\n')
  await reap(context())
  const [record] = await listRecords()
  assert.equal(record?.phase, 'exited')
  assert.equal(record.exitStatus, 7)
  assert.deepEqual(record.command, ['make'])
  assert.ok(existsSync(output))
})

test('the levels of a stack that has ended keep their names and its exit status; what else ran in them is gone', async () => {
  const [outer, inner] = exampleStack('outer', 'inner')
  assert.ok(outer && inner)
  const { engineDir } = await leave('outer', { engineProcess: deadProcess })
  writeFileSync(engineFiles(engineDir).exitStatus, '3\n')
  await saveRecord({ ...inner, command: ['make'] })
  await saveRecord({ ...inner, id: 'other', path: 'outer/other', stack: 'other' })
  await reap(context())
  const records = await listRecords()
  assert.deepEqual(
    records.map(({ path, phase, exitStatus }) => [path, phase, exitStatus]),
    [
      ['outer', 'exited', 3],
      ['outer/inner', 'exited', 3],
    ],
  )
})

test('with nothing to do, nothing is made', async () => {
  await reap(context())
  assert.ok(!existsSync(statePaths().dir))
})
