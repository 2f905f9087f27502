import assert from 'node:assert/strict'
// biome-ignore lint/style/noRestrictedImports: the subject is the processes themselves, and store is below machine
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { isAlive, processIdentity } from './process.ts'

test('a process has the same identity for as long as it lives', async () => {
  // A name with a space and a parenthesis, the hard case of /proc/PID/stat.
  const child = spawn(process.execPath, ['-e', "process.title = 'a) b'; console.log(); setInterval(() => {}, 1e6)"])
  await once(child.stdout, 'data')
  assert.ok(child.pid)
  const identity = processIdentity(child.pid)
  assert.ok(identity)
  assert.deepEqual(processIdentity(child.pid), identity)
  assert.ok(isAlive(identity))
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.ok(!isAlive(identity))
  assert.equal(processIdentity(child.pid), undefined)
})

test('a later process with the same id is another one', () => {
  const identity = processIdentity(process.pid)
  assert.ok(identity)
  assert.ok(!isAlive({ ...identity, startTime: identity.startTime - 1 }))
  assert.ok(!isAlive({ ...identity, boot: 'before the reboot' }))
})

test('a zombie is not alive', async () => {
  // The shell becomes a sleep that never waits for its child.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 30'])
  const [pid] = await once(parent.stdout, 'data')
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(processIdentity(Number(pid)), undefined)
  parent.kill('SIGKILL')
})
