import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { finished, Home, runWithCtrlC, said } from './nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

interface Snapshot {
  snapshot: string
  automatic: boolean
  tag?: string
  machine: string
  createdAt: string
  bytes: number
  levels: { machine: string; level: number }[]
}

const snapshots = () => home.json<Snapshot[]>('snapshot', 'ls')
const directory = (id: string) => join(home.dir, 'cache/nestvm/snapshots', id)

/** What is to differ between guests that were restored from one snapshot. */
const identity =
  'hostname; cat /etc/machine-id; md5sum /etc/nestvm/host-key /root/.ssh/authorized_keys; head -c 16 /dev/urandom | md5sum; date +%s'

async function identify(...args: string[]) {
  const [hostname, machineId, hostKey, login, random, time] = (
    await home.ok(...args, '--', 'sh', '-c', identity)
  ).split('\n')
  const difference = Math.abs(Number(time) - Date.now() / 1000)
  assert.ok(difference < 30, `its clock is wrong by ${difference} s`)
  return [hostname, machineId, hostKey, login, random]
}

test('the first run of a stack saves it, and later ones are other guests from the same snapshot', async () => {
  const first = await identify('run')
  const [saved, ...others] = await snapshots()
  assert.ok(saved?.automatic)
  assert.deepEqual(others, [])
  const second = await identify('run', '--name', 'second')
  const third = await identify('run')
  assert.equal(second[0], 'second')
  for (const [index, value] of first.entries()) {
    assert.equal(new Set([value, second[index], third[index]]).size, 3, `all have ${value}`)
  }
  const now = await snapshots()
  assert.deepEqual(
    now.map(({ createdAt }) => createdAt),
    [saved.createdAt],
  )
  assert.deepEqual(await home.traces(), [])
})

test('a command in a restored guest has its streams, environment, directory and exit status', async () => {
  const script = 'echo out; echo err >&2; pwd; echo $A; exit 7'
  const result = await home.run(['run', '-e', 'A=b c', '-w', '/etc', '--', 'sh', '-c', script])
  assert.deepEqual([result.status, result.stdout, result.stderr], [7, 'out\n/etc\nb c\n', 'err\n'])
  assert.equal((await home.run(['run', '--', '/no/such'])).status, 127)
  assert.equal((await home.run(['run', '--', 'sh', '-c', 'kill -TERM $$'])).status, 143)
  assert.equal(
    await home.ok('run', '--', 'sh', '-c', 'head -c 3000000 /dev/zero | tr "\\0" x').then((text) => text.length),
    3_000_000,
  )
  assert.equal(
    (await home.run(['run', '-i', '--', 'wc', '-c'], { input: 'x'.repeat(100_000) })).stdout.trim(),
    '100000',
  )
  assert.deepEqual(await home.traces(), [])
})

test('Ctrl-C goes to the command of a restored guest too', async () => {
  const { status, stdout } = await runWithCtrlC(home)
  assert.deepEqual([status, stdout], [9, 'ready\ncaught\n'])
})

test('others get into a restored guest while its command runs', async () => {
  const child = home.start('run', '--name', 'busy', '--', 'sh', '-c', 'echo ready; sleep 600')
  const ended = finished(child)
  await said(child, 'ready')
  while ((await home.json<{ phase: string }[]>('ls'))[0]?.phase !== 'running') await sleep(200)
  assert.equal(await home.ok('exec', 'busy', '--', 'hostname'), 'busy\n')
  child.kill('SIGTERM')
  await ended
})

test('other inputs make another stack, and --no-snapshot neither uses nor makes one', async () => {
  const before = (await snapshots()).length
  await home.ok('run', '--no-snapshot', '--memory', '400M', '--', 'true')
  assert.equal((await snapshots()).length, before)
  await home.ok('run', '--memory', '300M', '--', 'true')
  assert.equal((await snapshots()).length, before + 1)
})

test('what is damaged is not restored: the run says so, starts anew and saves again', async () => {
  for (const damage of [
    (dir: string) => truncateSync(join(dir, 'ram'), 4096),
    (dir: string) => utimesSync(join(dir, 'ram'), new Date(), new Date(1000)),
    (dir: string) => writeFileSync(join(dir, 'state'), 'not a state'),
    (dir: string) => writeFileSync(join(dir, 'snapshot.json'), '{}'),
  ]) {
    for (const id of readdirSync(directory(''))) damage(directory(id))
    const { status, stdout, stderr } = await home.run(['run', '--', 'echo', 'works'])
    assert.deepEqual([status, stdout], [0, 'works\n'])
    assert.match(stderr, /starting anew: the snapshot \w+ is damaged/)
    assert.equal((await home.run(['run', '--', 'true'])).stderr, '')
  }
})

test('a published port and a volume are those of the new run', async () => {
  for (const text of ['first', 'second']) {
    writeFileSync(join(home.dir, 'page'), text)
    const volume = `${home.dir}:/data:ro`
    const child = home.start(
      'run',
      '-v',
      volume,
      '-p',
      '18080:80',
      '--',
      'sh',
      '-c',
      'cat /data/page; nc -l -p 80 < /data/page',
    )
    const ended = finished(child)
    await said(child, text)
    const answer = await fetchText(18_080)
    assert.equal(answer, text)
    assert.equal((await ended).status, 0)
  }
  assert.deepEqual(await home.traces(), [])
})

async function fetchText(port: number): Promise<string> {
  const { connect } = await import('node:net')
  for (let tries = 100; ; tries--) {
    const text = await new Promise<string>((resolve) => {
      let received = ''
      const socket = connect(port, '127.0.0.1', () => socket.end())
      socket.on('data', (chunk) => {
        received += chunk
      })
      socket.on('error', () => resolve(''))
      socket.on('close', () => resolve(received))
    })
    if (text !== '' || tries === 0) return text
    await sleep(200)
  }
}

/** Counts in a file, and keeps a file whose contents it tells. */
const work =
  'head -c 2000000 /dev/urandom > /tmp/file; md5sum < /tmp/file > /tmp/sum; ' +
  '(i=0; while :; do i=$((i + 1)); echo $i > /tmp/next; mv /tmp/next /tmp/count; usleep 50000; done) > /dev/null 2>&1 < /dev/null &'
const look = 'md5sum < /tmp/file | cmp - /tmp/sum && cat /tmp/count; sleep 1; cat /tmp/count'

async function counts(...args: string[]): Promise<[number, number]> {
  const [before = 0, later = 0] = (await home.ok(...args, '--', 'sh', '-c', look)).split('\n').map(Number)
  assert.ok(later > before, `the counter stands at ${before}`)
  return [before, later]
}

test('a stack of three levels is saved while it works, and goes on in many clones and in itself', async () => {
  await home.ok('run', '-d', '--depth', '3', '--name', 'a')
  for (const path of ['a/l2', 'a/l2/l3']) await home.ok('exec', path, '--', 'sh', '-c', work)
  await home.ok('snapshot', 'create', 'a', '--tag', 'working')
  const saved = (await snapshots()).find(({ tag }) => tag === 'working')
  assert.deepEqual(
    saved?.levels.map(({ machine }) => machine),
    ['a', 'a/l2', 'a/l2/l3'],
  )
  const [atSource] = await counts('exec', 'a/l2/l3')
  for (let turn = 1; turn <= Number(process.env.NESTVM_TEST_RESTORES ?? 3); turn++) {
    await home.ok('clone', 'working', '-d', '--name', 'b')
    const [atL2] = await counts('exec', 'b/l2')
    const [atL3] = await counts('exec', 'b/l2/l3')
    assert.ok(atL2 > 0 && atL3 > 0 && Number.isInteger(atSource))
    assert.equal(await home.ok('exec', 'b/l2/l3', '--', 'hostname'), 'b-l2-l3\n')
    await home.ok('rm', '-f', 'b')
  }
  await home.ok('rm', '-f', 'a')
})

test('clones share the memory that they were saved with, also after the snapshot was removed', async () => {
  for (const name of ['c1', 'c2']) await home.ok('clone', 'working', '-d', '--name', name)
  await home.ok('snapshot', 'rm', 'working')
  interface Listed {
    machine: string
    memoryMiB: number
    pssBytes?: number
  }
  const listed = (await home.json<Listed[]>('ls')).filter(({ machine }) => /^c\d$/.test(machine))
  assert.equal(listed.length, 2)
  for (const { memoryMiB, pssBytes } of listed) {
    assert.ok(pssBytes && pssBytes < (memoryMiB * 2 ** 20) / 2, `${pssBytes} of ${memoryMiB} MiB`)
  }
  const [one, two] = [await identify('exec', 'c1/l2/l3'), await identify('exec', 'c2/l2/l3')]
  for (const [index, value] of one.entries()) assert.notEqual(value, two[index])
  await counts('exec', 'c2/l2/l3')
  await home.ok('rm', '-f', 'c1', 'c2')
  assert.deepEqual(await home.traces(), [])
})

test('a clone of a machine with a volume has it too, served anew', async () => {
  const dir = join(home.dir, 'shared')
  mkdirSync(dir)
  writeFileSync(join(dir, 'file'), 'of the host\n')
  await home.ok('run', '-d', '--depth', '2', '--name', 'v', '-v', `${dir}:/data`)
  assert.equal(await home.ok('exec', 'v/l2', '--', 'cat', '/data/file'), 'of the host\n')
  await home.ok('snapshot', 'create', 'v', '--tag', 'v')
  await home.ok('clone', 'v', '-d', '--name', 'w')
  assert.equal(await home.ok('exec', 'w/l2', '--', 'sh', '-c', 'cat /data/file; hostname > /data/of'), 'of the host\n')
  assert.equal(readFileSync(join(dir, 'of'), 'utf8'), 'w-l2\n')
  assert.equal(await home.ok('exec', 'v/l2', '--', 'cat', '/data/of'), 'w-l2\n')
  await home.ok('rm', '-f', 'v', 'w')
  await home.ok('snapshot', 'rm', 'v')
})

test('a nested guest, a machine that is not there and a taken tag are refused', async () => {
  const refused = async (...args: string[]) => {
    const { stdout } = await home.run([...args, '--json'])
    return JSON.parse(stdout).error.code
  }
  await home.ok('run', '-d', '--depth', '2', '--name', 'd')
  assert.equal(await refused('snapshot', 'create', 'd/l2'), 'NOT_OUTERMOST')
  assert.equal(await refused('snapshot', 'create', 'e'), 'NO_SUCH_MACHINE')
  await home.ok('snapshot', 'create', 'd', '--tag', 't')
  assert.equal(await refused('snapshot', 'create', 'd', '--tag', 't'), 'TAG_TAKEN')
  assert.equal(await refused('clone', 't', '-d', '--name', 'd'), 'NAME_TAKEN')
  assert.equal(await refused('clone', 'u', '-d'), 'NO_SUCH_SNAPSHOT')
  assert.equal(await home.ok('clone', 't', '--', 'sh', '-c', 'grep -c processor /proc/cpuinfo'), '1\n')
  await home.ok('rm', '-f', 'd')
  assert.deepEqual(await home.traces(), [])
})

test('a machine that was started anew, with its memory in no file, is saved and cloned too', async () => {
  await home.ok('run', '-d', '--name', 'anew', '--no-snapshot')
  await home.ok('exec', 'anew', '--', 'sh', '-c', 'echo kept > /tmp/kept')
  await home.ok('snapshot', 'create', '--tag', 'anew', 'anew')
  const clone = ['clone', '-d', 'anew', '--name', 'again', '--json', '--', 'echo', 'said']
  const cloned = { machine: 'again', machines: ['again'], exitStatus: 0, stdout: 'said\n', stderr: '' }
  assert.deepEqual(JSON.parse(await home.ok(...clone)), cloned)
  assert.equal(await home.ok('exec', 'again', '--', 'cat', '/tmp/kept'), 'kept\n')
  await home.ok('rm', '-f', 'anew', 'again')
  await home.ok('snapshot', 'rm', 'anew')
})
