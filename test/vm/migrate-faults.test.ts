import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { after, before, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { count, heldIn, phaseOf, recordOf, until, work } from './moves.ts'
import { finished, Home } from './nestvm.ts'

// A guest goes to and fro between two emulated guest hypervisors, and something breaks at some moment of each move.

const home = new Home()
/** NESTVM_TEST_MOVES=50 tries each fault as often as the project promises. */
const tries = (usually: number) => Number(process.env.NESTVM_TEST_MOVES ?? usually)
const hosts = ['h1', 'h2']
/** How long an undisturbed move took from the command's start to the take-over, and to its end, in milliseconds. */
let usual = { takeOver: 0, whole: 0 }

before(async () => {
  await makeReady()
  const begun = performance.now()
  const child = home.start('migrate', 'h1/x', '--to', 'h2')
  const result = finished(child)
  assert.ok(await until(() => phaseOf(home, '/x') === 'taken over', 120_000))
  const takeOver = performance.now() - begun
  assert.equal((await result).status, 0)
  usual = { takeOver, whole: performance.now() - begun }
})
after(() => home[Symbol.asyncDispose]())

/** Machines that run. */
async function running(): Promise<string[]> {
  const machines = await home.json<{ machine: string; phase: string }[]>('ls')
  return machines.filter(({ phase }) => phase === 'running').map(({ machine }) => machine)
}

/** Both hosts, and the guest on one of them. */
async function makeReady(): Promise<void> {
  const found = await running()
  for (const host of hosts.filter((name) => !found.includes(name))) {
    if (recordOf(home, host)) await home.ok('rm', '-f', host)
    await startHost(host)
  }
  if (found.includes('h1/x') || found.includes('h2/x')) return
  const left = recordOf(home, '/x')
  if (left) await home.ok('rm', '-f', left.path)
  await home.ok('run', '-d', '--on', 'h1', '--name', 'x', '--memory', '256M')
  await home.ok('exec', 'h1/x', '--', 'sh', '-c', work)
}

/** With a file system of its own for what engines write there, which a test can fill. */
async function startHost(name: string): Promise<void> {
  await home.ok('run', '-d', '--nested', '--memory', '1G', '--name', name)
  const mount = 'mount -t tmpfs -o size=64m engines /mnt && cp -a /run/nestvm/. /mnt && mount --move /mnt /run/nestvm'
  await inside(name, `mkdir -p /mnt && ${mount}`)
}

const inside = (host: string, script: string) => home.ok('exec', host, '--', 'sh', '-c', script)

const enginePid = (host: string) => Number(recordOf(home, host)?.engineProcess?.pid)

interface Try {
  from: string
  to: string
  migrate: ChildProcess
}

interface Fault {
  strike: (move: Try) => unknown
  /** Done before anybody looks. */
  mend?: (move: Try) => unknown
  /** The side on which it takes the guest with it. */
  fatal?: 'from' | 'to'
  /** It has a likeness among the others, and is tried less often. */
  alike?: true
}

const killEngine = 'kill -9 $(cat /run/nestvm/*/engine.pid) 2> /dev/null; true'
/** All but the server itself and the session that this runs in. */
const cutSessions = `for pid in $(pidof dropbear); do
  read -r _ _ _ parent _ < /proc/$pid/stat
  [ $pid = $PPID ] || [ $parent = 1 ] || kill -9 $pid
done; true`

const faults: Record<string, Fault> = {
  'Ctrl-C': { strike: ({ migrate }) => migrate.kill('SIGINT') },
  'kill -9 of nestvm': { strike: ({ migrate }) => migrate.kill('SIGKILL'), alike: true },
  'the death of the new engine': { strike: ({ to }) => inside(to, killEngine), fatal: 'to', alike: true },
  'the death of the old engine': { strike: ({ from }) => inside(from, killEngine), fatal: 'from', alike: true },
  'the death of the target': { strike: ({ to }) => process.kill(enginePid(to), 'SIGKILL'), fatal: 'to' },
  'the death of the source': { strike: ({ from }) => process.kill(enginePid(from), 'SIGKILL'), fatal: 'from' },
  'a full file system at the target': {
    strike: ({ to }) => inside(to, 'cat /dev/zero > /run/nestvm/full 2> /dev/null; true'),
    mend: ({ to }) => inside(to, 'rm /run/nestvm/full'),
  },
  'a cut connection to the target': { strike: ({ to }) => inside(to, cutSessions) },
  'a cut connection to the source': { strike: ({ from }) => inside(from, cutSessions), alike: true },
  'three seconds without a word from the target': { strike: ({ to }) => standStill(to, 3000), alike: true },
}

async function standStill(host: string, ms: number): Promise<void> {
  process.kill(enginePid(host), 'SIGSTOP')
  await sleep(ms)
  process.kill(enginePid(host), 'SIGCONT')
}

for (const [name, fault] of Object.entries(faults)) {
  test(`after ${name} at any moment of a move the guest runs on one side, and nothing is left on the other`, async (t) => {
    const seen: Record<string, number> = {}
    for (let turn = 0; turn < tries(fault.alike ? 2 : 5); turn++) {
      await makeReady()
      const when = await oneTry(t, fault, turn)
      seen[when] = (seen[when] ?? 0) + 1
    }
    t.diagnostic(`moments: ${JSON.stringify(seen)}`)
    assert.ok(seen[early], 'all tries came after the take-over')
  })
}

/** The first of five surely after the take-over, the next two surely before it, the others around it. */
async function moment(turn: number): Promise<void> {
  const { takeOver, whole } = usual
  const begun = performance.now()
  if (turn % 5 === 0) {
    assert.ok(await until(() => phaseOf(home, '/x') === 'taken over', 120_000))
    // How busy the machine is changes.
    usual = { takeOver: performance.now() - begun, whole: performance.now() - begun + whole - takeOver }
    await sleep(Math.random() * 0.6 * (whole - takeOver))
  } else if (turn % 5 < 3) await sleep(Math.random() * 0.3 * takeOver)
  else await sleep(takeOver - 1500 + Math.random() * (1500 + 0.6 * (whole - takeOver)))
}

const early = 'before the take-over'

/** Returns when it struck. */
async function oneTry(t: TestContext, fault: Fault, turn: number): Promise<string> {
  const begun = performance.now()
  const start = recordOf(home, '/x')
  const [from = '', to = ''] = start?.path === 'h1/x' ? hosts : hosts.toReversed()
  const counted = await count(home, `${from}/x`)
  const hasMoved = () => recordOf(home, '/x')?.parent !== start?.parent

  const migrate = home.start('migrate', `${from}/x`, '--to', to, '--json')
  const started = performance.now()
  const result = finished(migrate)
  await moment(turn)
  const struck = performance.now() - started
  const over = migrate.exitCode !== null
  const late = hasMoved()
  await fault.strike({ from, to, migrate })
  const later = hasMoved()
  const { status, stdout } = await result
  const ended = performance.now() - started
  await fault.mend?.({ from, to, migrate })

  const found = await running()
  const side = found.includes(`${to}/x`) ? to : from
  const when = over ? 'after the move' : late ? 'after the take-over' : later ? 'as it was taken over' : early
  const said = status === 0 ? '' : stdout.replaceAll(/\s+/g, ' ').slice(0, 200)
  t.diagnostic(
    `${when}: at ${Math.round(struck)} ms; ended with ${status} at ${Math.round(ended)} ms; runs: ${found.join(' ')} ${said}`,
  )
  if (found.includes(`${side}/x`)) {
    assert.deepEqual(
      found.filter((machine) => machine.endsWith('/x')),
      [`${side}/x`],
    )
    assert.equal(side, hasMoved() ? to : from)
    if (late || status === 0) assert.equal(side, to)
    assert.ok((await count(home, `${side}/x`)) > counted)
    assert.equal((await heldIn(home, side)).engines, 1)
  } else {
    assert.ok(fault.fatal === 'to' ? later : fault.fatal === 'from' && !late, 'the guest is lost')
    await home.run(['rm', '-f', `${recordOf(home, '/x')?.path}`])
    assert.equal(recordOf(home, '/x'), undefined)
    if (found.includes(side)) assert.deepEqual(await heldIn(home, side), { engines: 0, rest: [] })
  }
  const other = side === from ? to : from
  if (found.includes(other)) assert.deepEqual(await heldIn(home, other), { engines: 0, rest: [] })
  t.diagnostic(`${Math.round((performance.now() - begun) / 1000)} s`)
  return when
}
