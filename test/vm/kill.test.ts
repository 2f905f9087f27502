import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { enginesOf, finished, Home, said } from './nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

test('after kill -9 of nestvm at any stage of a start, the next command finds nothing left or cleans it', async () => {
  // From before the first file to after the last level is up; the stages drift, the intervals cover them.
  for (const milliseconds of [60, 120, 200, 300, 500, 900, 1500, 2200, 3000, 4000, 5500, 7500, 10_000]) {
    const child = home.start('run', '--depth', '2', '--', 'sleep', '1000')
    await sleep(milliseconds)
    child.kill('SIGKILL')
    await finished(child)
    assert.equal(await home.ok('ls', '--all'), '', `killed after ${milliseconds} ms`)
    assert.deepEqual(await home.traces(), [], `killed after ${milliseconds} ms`)
  }
})

test('after kill -9 during a detached start, the next command cleans up too', async () => {
  for (const milliseconds of [250, 600, 1500, 2500]) {
    const child = home.start('run', '-d', '--name', 'd', '--', 'sleep', '1000')
    // Listened to from the start: on a fast machine it ends by itself before the last of these times.
    const ended = finished(child)
    await sleep(milliseconds)
    child.kill('SIGKILL')
    await ended
    await home.ok('ls', '--all')
    // Where it had let go of the machine already, the machine stays and is removed; else it is not there.
    const left = await home.run(['rm', '-f', 'd'])
    assert.ok(left.status === 0 || left.status === 125)
    assert.deepEqual(await home.traces(), [], `killed after ${milliseconds} ms`)
  }
})

test('kill -9 of nestvm while it starts a nested guest leaves nothing in the hypervisor', async () => {
  await home.ok('run', '-d', '--nested', '--name', 'hv')
  for (const milliseconds of [800, 1600, 2600, 4500]) {
    const child = home.start('run', '--on', 'hv', '--name', 'in', '--', 'sleep', '1000')
    await sleep(milliseconds)
    child.kill('SIGKILL')
    await finished(child)
    await home.ok('ls')
    const left = await home
      .ok('exec', 'hv', '--', 'sh', '-c', 'pgrep -f qemu-system | wc -l; ls /sys/class/net | grep -c ^t')
      .catch(() =>
        home
          .run(['exec', 'hv', '--', 'sh', '-c', 'ps | grep -c "[q]emu-system"; ls /sys/class/net | grep -c ^t'])
          .then(({ stdout }) => stdout),
      )
    assert.match(left, /^0\n0\n$/, `killed after ${milliseconds} ms: ${left}`)
  }
  await home.ok('rm', '-f', 'hv')
})

test('the first Ctrl-C goes to the command, and what it does then counts', async () => {
  const script = 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.2; done'
  const child = home.start('run', '--', 'sh', '-c', script)
  const result = finished(child)
  await said(child, 'ready')
  child.kill('SIGINT')
  const { status, stdout } = await result
  assert.deepEqual([status, stdout], [9, 'ready\ncaught\n'])
  assert.deepEqual(await home.traces(), [])
})

test('Ctrl-C during a start stops it cleanly, a second one at once', async () => {
  const once = home.start('run', '--depth', '2', '--', 'sleep', '1000')
  await sleep(4000)
  once.kill('SIGINT')
  assert.equal((await finished(once)).status, 130)
  assert.deepEqual(await home.traces(), [])

  const twice = home.start('run', '--', 'sh', '-c', 'trap "" INT; echo ready; sleep 1000')
  await said(twice, 'ready')
  twice.kill('SIGINT')
  await sleep(300)
  const before = performance.now()
  twice.kill('SIGINT')
  assert.equal((await finished(twice)).status, 130)
  assert.ok(performance.now() - before < 2000)
  while (enginesOf(home.dir).length > 0) await sleep(20)
  await home.ok('ls')
  assert.deepEqual(await home.traces(), [])
})

test('a killed QEMU ends the run with the reason', async () => {
  const child = home.start('run', '--', 'sh', '-c', 'echo ready; sleep 1000')
  const result = finished(child)
  await said(child, 'ready')
  for (const pid of enginesOf(home.dir)) process.kill(pid, 'SIGKILL')
  const { status, stderr } = await result
  assert.equal(status, 125)
  assert.match(stderr, /engine ended while it ran \(SIGKILL\)/)
  assert.deepEqual(await home.traces(), [])
})

test('a full disk is an error that says so, and leaves nothing half-made', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can make a small file system')
  const dir = join(home.dir, 'small')
  mkdirSync(dir)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=700', 'tmpfs', dir])
  try {
    const small = new Home()
    small.env.XDG_STATE_HOME = dir
    const { status, stdout } = await small.run(['run', '--json', '--', 'true'])
    assert.equal(status, 125)
    assert.equal(JSON.parse(stdout).error.code, 'NO_SPACE')
    assert.equal(
      existsSync(join(dir, 'nestvm/machines')) && execFileSync('ls', [join(dir, 'nestvm/machines')]).length,
      0,
    )
    await small[Symbol.asyncDispose]()
  } finally {
    execFileSync('umount', [dir])
  }
})
