import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { finished, Home, said } from './nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

/** Ends a guest as a fault in its kernel does. */
const panic = ['sh', '-c', 'echo c > /proc/sysrq-trigger']

/** A start of level 3 may take minutes under emulation, so nobody has waited for its limit. */
const promptMs = 60_000

test('a guest that panics while its command runs: QEMU says why it ended, and its console is shown', async () => {
  const { status, stderr } = await home.run(['run', '--no-snapshot', '--name', 'a', '--', ...panic])
  assert.equal(status, 125)
  assert.match(stderr, /a: its engine ended.*: the guest reset its machine/)
  assert.match(stderr, /\| .*Kernel panic/)
})

test('a guest that shuts itself down says so', async () => {
  const { stderr } = await home.run(['run', '--no-snapshot', '--name', 'a', '--', 'poweroff', '-f'])
  assert.match(stderr, /a: its engine ended.*: the guest shut its machine down/)
})

test('when the guest around it dies while level 3 starts, the run ends at once and names that guest', async () => {
  const child = home.start('run', '--no-snapshot', '--depth', '3', '--name', 's', '--', 'true')
  const ended = finished(child)
  const phase = async () => (await home.json<{ machine: string; phase: string }[]>('ls', '--all')).at(-1)
  for (let last = await phase(); last?.machine !== 's/l2/l3'; last = await phase()) {
    assert.equal(child.exitCode, null)
    await sleep(100)
  }
  const begun = performance.now()
  await home.run(['exec', 's/l2', '--', ...panic])
  const { status, stderr } = await ended
  assert.ok(performance.now() - begun < promptMs)
  assert.equal(status, 125)
  assert.match(stderr, /s\/l2: its engine ended.*: the guest reset its machine/)
  assert.deepEqual(await home.traces(), [])
})

test('when a guest around it dies while a command runs, exec ends at once and names that guest', async () => {
  await home.ok('run', '-d', '--no-snapshot', '--depth', '3', '--name', 'e')
  const child = home.start('exec', 'e/l2/l3', '--', 'sh', '-c', 'echo ready; sleep 1000')
  const ended = finished(child)
  await said(child, 'ready')
  const begun = performance.now()
  await home.run(['exec', 'e/l2', '--', ...panic])
  const { status, stderr } = await ended
  assert.ok(performance.now() - begun < promptMs)
  assert.equal(status, 125)
  assert.match(stderr, /e\/l2: its engine ended: the guest reset its machine/)
  await home.ok('rm', '-f', 'e')
})

test('when a nested guest of a detached stack dies, the log of the outermost one keeps the reason', async () => {
  await home.ok('run', '-d', '--no-snapshot', '--depth', '2', '--name', 'd', '--', 'sh', '-c', `sleep 3; ${panic[2]}`)
  const running = async () => (await home.json<{ phase: string }[]>('ls')).length > 0
  while (await running()) await sleep(200)
  assert.match(await home.ok('logs', '--of', 'kernel', 'd'), /the engine of d\/l2 ended \(status 0\): .*guest-reset/)
  await home.ok('rm', 'd')
})
