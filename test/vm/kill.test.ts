import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { enginesOf, finished, Home, runWithCtrlC, said } from './nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

/** What a start leaves on disk on its way, in this order. */
const stages: readonly [name: string, reached: () => boolean][] = [
  ['the directory of L1', () => inMachines(/^[0-9a-f]{10}$/) > 0],
  ['its record', () => inMachines(/record\.json$/) > 0],
  ['its keys', () => inMachines(/known_hosts$/) > 0],
  ['its initramfs', () => inMachines(/initrd$/) > 0],
  ['the log of its engine', () => inMachines(/engine\.log$/) > 0],
  ['the pid of its engine', () => inMachines(/engine\.pid$/) > 0],
  ['its QMP socket', () => inSockets(/qmp$/) > 0],
  ['its first message', () => kernelLogs().length > 0],
  ['its ssh server', () => kernelLogs().includes('nestvm: up')],
  ['L1 running', () => running() === 1],
  ['the record of L2', () => inMachines(/record\.json$/) > 1],
  ['the way in to L2', () => inSockets(/s[0-9a-f]{8}$/) > 1],
  ['the pid of its engine', () => readAll(/record\.json$/).filter((text) => text.includes('"enginePid"')).length > 1],
  ['L2 running', () => running() === 2],
]

for (const [name, reached] of stages) {
  test(`after kill -9 of nestvm when a start has come to ${name}, the next command leaves nothing`, async () => {
    const child = home.start('run', '--no-snapshot', '--depth', '2', '--', 'sleep', '1000')
    const ended = finished(child)
    while (!reached() && child.exitCode === null) await sleep(1)
    child.kill('SIGKILL')
    await ended
    assert.equal(await home.ok('ls', '--all'), '')
    assert.deepEqual(await home.traces(), [])
  })
}

const machines = () => join(home.dir, 'state/nestvm/machines')
const inMachines = (wanted: RegExp) => namesIn(machines()).filter((name) => wanted.test(name)).length
const inSockets = (wanted: RegExp) => namesIn(join(home.dir, 'nestvm')).filter((name) => wanted.test(name)).length
const kernelLogs = () => readAll(/kernel\.log$/).join('')
const running = () => readAll(/record\.json$/).filter((text) => text.includes('"phase": "running"')).length

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir, { recursive: true, encoding: 'utf8' })
  } catch {
    // It is not there yet, or changes while it is read.
    return []
  }
}

function readAll(wanted: RegExp): string[] {
  return namesIn(machines())
    .filter((name) => wanted.test(name) && !name.startsWith('.'))
    .flatMap((name) => {
      try {
        return [readFileSync(join(machines(), name), 'latin1')]
      } catch {
        return []
      }
    })
}

test('after kill -9 during a detached start, the next command cleans up too', async () => {
  for (const milliseconds of [250, 600, 1500, 2500]) {
    const child = home.start('run', '--no-snapshot', '-d', '--name', 'd', '--', 'sleep', '1000')
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
  const { status, stdout } = await runWithCtrlC(home)
  assert.deepEqual([status, stdout], [9, 'ready\ncaught\n'])
  assert.deepEqual(await home.traces(), [])
})

test('Ctrl-C during a start stops it cleanly, a second one at once', async () => {
  const once = home.start('run', '--no-snapshot', '--depth', '2', '--', 'sleep', '1000')
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
