import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../image/programs.ts'
import { finished, Home } from './nestvm.ts'

// Two emulated guests, h1 and h2, play two hosts: a guest of theirs is a level 1 guest of such a host.

const home = new Home()
before(async () => {
  for (const name of ['h1', 'h2']) await home.ok('run', '-d', '--nested', '--memory', '2200M', '--name', name)
})
after(() => home[Symbol.asyncDispose]())

/** Counts in a file, keeps a file whose contents it tells, and appends to another. */
const work = `head -c 1000000 /dev/urandom > /tmp/file; md5sum < /tmp/file > /tmp/sum
(i=0; while :; do i=$((i + 1)); echo $i > /tmp/next; mv /tmp/next /tmp/count; echo $i >> /tmp/lines; usleep 50000; done) > /dev/null 2>&1 < /dev/null &`
/** The lines are all numbers from 1 on, none twice, and the counter goes on. */
const look = `md5sum < /tmp/file | cmp - /tmp/sum || exit 1
awk '$1 != NR { exit 1 }' /tmp/lines || exit 1
cat /tmp/count; sleep 1; cat /tmp/count`

async function count(path: string): Promise<number> {
  const [first = 0, later = 0] = (await home.ok('exec', path, '--', 'sh', '-c', look)).split('\n').map(Number)
  assert.ok(later > first, `the counter of ${path} stands at ${first}`)
  return later
}

async function paths(): Promise<string[]> {
  return (await home.json<{ machine: string; state: string }[]>('ls')).map(({ machine }) => machine).sort()
}

interface Migrated {
  machine: string
  from: string
  downtimeMs: number
  sentBytes: number
}

const move = (machine: string, to: string, ...more: string[]) =>
  home.json<Migrated>('migrate', machine, '--to', to, ...more)

async function codeOf(...args: string[]): Promise<string> {
  const { stdout } = await home.run([...args, '--json'])
  return JSON.parse(stdout).error?.code
}

/** A connection to a published port whose other end says what it is told. */
async function openEcho(port: number) {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk
  })
  const say = async (line: string) => {
    socket.write(`${line}\n`)
    for (let tries = 600; !text.includes(line); tries--) {
      assert.ok(tries > 0, `the connection does not answer: ${text}`)
      await sleep(100)
    }
  }
  return { say, end: () => socket.destroy() }
}

test('a guest goes on in another guest hypervisor, with its output and its published port', async () => {
  const port = await freePort()
  const script = `${work}\nwhile :; do nc -l -p 7000 -e cat; done & while :; do cat /tmp/count; sleep 1; done`
  await home.ok('run', '-d', '--on', 'h1', '--name', 'x', '-p', `127.0.0.1:${port}:7000`, '--', 'sh', '-c', script)
  const said = await home.ok('logs', 'h1/x')
  const counted = await count('h1/x')
  const moved = await move('h1/x', 'h2')
  assert.deepEqual([moved.machine, moved.from], ['h2/x', 'h1/x'])
  assert.ok(moved.downtimeMs > 0 && moved.sentBytes > 10e6, JSON.stringify(moved))
  assert.ok((await count('h2/x')) > counted)
  assert.deepEqual(await paths(), ['h1', 'h2', 'h2/x'])
  assert.ok((await home.ok('logs', 'h2/x')).startsWith(said))
  const echo = await openEcho(port)
  await echo.say('hello')
  echo.end()
  await home.ok('rm', '-f', 'h2/x')
  assert.equal(await home.ok('exec', 'h2', '--', 'sh', '-c', 'ip route | grep " dev t" || true'), '')
  assert.deepEqual([await engines('h1'), await engines('h2')], [0, 0])
})

test('what cannot move is refused before anything is done', async () => {
  await home.ok('run', '-d', '--on', 'h1', '--name', 'x')
  await home.ok('run', '-d', '--on', 'h2', '--name', 'x')
  assert.equal(await codeOf('migrate', 'h1', '--to', 'h2'), 'UNSUPPORTED')
  assert.equal(await codeOf('migrate', 'h1/x', '--to', 'h1'), 'CANNOT_MOVE')
  assert.equal(await codeOf('migrate', 'h1/x', '--to', 'h2/x'), 'CANNOT_MOVE')
  assert.equal(await codeOf('migrate', 'h1/x', '--to', 'h2'), 'NAME_TAKEN')
  assert.equal(await codeOf('migrate', 'h1/x', '--to', 'nobody'), 'NO_SUCH_MACHINE')
  await home.ok('rm', '-f', 'h2/x')
  await home.ok('exec', 'h1/x', '--', 'sh', '-c', work)
})

/** Starts to move h1/x slowly, and does something to it on the way. */
async function disturbed(disturb: (child: ChildProcess) => unknown) {
  const child = home.start('migrate', 'h1/x', '--to', 'h2', '--bandwidth', '4M', '--json')
  const result = finished(child)
  await sleep(1000 + Math.random() * 6000)
  await disturb(child)
  return result
}

/** How many guests a host's KVM has. */
const engines = (host: string) =>
  home.ok('exec', host, '--', 'sh', '-c', 'ls -l /proc/[0-9]*/fd 2> /dev/null | grep -c kvm-vm || true').then(Number)

const tries = Number(process.env.NESTVM_TEST_MOVES ?? 2)
const faults: Record<string, (child: ChildProcess) => unknown> = {
  'Ctrl-C': (child) => child.kill('SIGINT'),
  'kill -9 of nestvm': (child) => child.kill('SIGKILL'),
  'the death of the new engine': () =>
    home.ok(
      'exec',
      'h2',
      '--',
      'sh',
      '-c',
      'for file in /run/nestvm/*/engine.pid; do kill -9 $(cat $file); done; true',
    ),
}

for (const [name, disturb] of Object.entries(faults)) {
  test(`after ${name} in the midst of a move the guest runs where it was, and nowhere else`, async () => {
    for (let turn = 0; turn < tries; turn++) {
      const counted = await count('h1/x')
      const { status } = await disturbed(disturb)
      assert.notEqual(status, 0)
      assert.ok((await count('h1/x')) > counted)
      assert.deepEqual(await paths(), ['h1', 'h1/x', 'h2'])
      assert.deepEqual([await engines('h1'), await engines('h2')], [1, 0])
    }
  })
}

test('after the death of the guest itself nothing of it is on the other side', async () => {
  const kill = 'for file in /run/nestvm/*/engine.pid; do kill -9 $(cat $file); done'
  const { status } = await disturbed(() => home.ok('exec', 'h1', '--', 'sh', '-c', kill))
  assert.notEqual(status, 0)
  assert.equal(await engines('h2'), 0)
  await home.ok('rm', '-f', 'h1/x')
  assert.deepEqual(await paths(), ['h1', 'h2'])
})

test('the four moves of the KVM document: L1 with a live L2; L2 to another L1 here, to one there, and to the host', async () => {
  await home.ok('run', '-d', '--on', 'h1', '--name', 'x', '--nested', '--memory', '700M')
  await home.ok('run', '-d', '--on', 'h1/x', '--name', 'y', '--memory', '256M')
  await home.ok('exec', 'h1/x/y', '--', 'sh', '-c', work)
  let counted = await count('h1/x/y')
  const goesOn = async (path: string) => {
    const now = await count(path)
    assert.ok(now > counted)
    counted = now
  }

  assert.equal(await codeOf('migrate', 'h1/x', '--to', 'h2'), 'NESTED_STATE_LOST')
  await move('h1/x', 'h2', '--force')
  assert.deepEqual(await paths(), ['h1', 'h2', 'h2/x', 'h2/x/y'])
  await goesOn('h2/x/y')

  await home.ok('run', '-d', '--on', 'h2', '--name', 'z', '--nested', '--memory', '700M')
  const listener = 'while :; do nc -l -p 7000 -e cat; done > /dev/null 2>&1 < /dev/null &'
  await home.ok('exec', 'h2/x/y', '--', 'sh', '-c', listener)
  await move('h2/x/y', 'h2/z')
  await goesOn('h2/z/y')
  await home.ok('rm', '-f', 'h2/x')

  await home.ok('run', '-d', '--on', 'h1', '--name', 'w', '--nested', '--memory', '700M')
  await move('h2/z/y', 'h1/w')
  await goesOn('h1/w/y')
  await home.ok('rm', '-f', 'h2/z')

  await move('h1/w/y', 'h2', '--name', 'moved')
  await goesOn('h2/moved')
  assert.deepEqual(await paths(), ['h1', 'h1/w', 'h2', 'h2/moved'])
  await home.ok('rm', '-f', 'h1', 'h2')
  assert.deepEqual(await home.traces(), [])
})
