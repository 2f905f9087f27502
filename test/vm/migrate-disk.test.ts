import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '../../src/machine/keys.ts'
import { busyboxImage } from './busybox-image.ts'
import { count, recordOf, work } from './moves.ts'
import { enginesOf, finished, Home } from './nestvm.ts'
import { SshServer, trust } from './ssh-server.ts'

// The other host is this one, with a user's directories of its own, and a small file system for what containers write.
const home = new Home()
home.ownImages()
const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))
const disks = { here: join(home.dir, 'state/nestvm/disks'), there: join(there.dir, 'state/nestvm/engine-disks') }
const applets = 'sh cat head tail mkfifo md5sum cmp awk sleep sync df dd mount'.split(' ')
let image: string

before(async () => {
  await there.listen()
  trust(there, home)
  mkdirSync(disks.there, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=120m,mode=700', 'tmpfs', disks.there])
  image = await busyboxImage(join(home.dir, 'image'), applets)
})
after(async () => {
  await there.close()
  execFileSync('umount', ['-l', disks.there])
  await home[Symbol.asyncDispose]()
})

/** Where what containers write is. */
const files = () => [readdirSync(disks.here).length, readdirSync(disks.there).length]

test('a container on another host keeps what it writes in a file there, which goes with it', async () => {
  const script = 'echo kept > /file; sync; cat /file; df / | tail -n 1'
  const run = ['run', '--on', there.url, '--disk', '60M', image, '--', 'sh', '-c', script]
  const [kept, size] = (await home.ok(...run)).split('\n')
  assert.equal(kept, 'kept')
  assert.match(size ?? '', /^overlay +5\d{4} /)
  assert.deepEqual(readdirSync(disks.there), [])
  assert.deepEqual(await home.traces(), [])
})

interface Migrated {
  machine: string
  sentBytes: number
  downtimeMs: number
}

/** Counts, too, with each number on the disk before the next one is counted. */
const durable = `${work}
(exec 4<> /tmp/never; i=0; while :; do i=$((i + 1)); echo $i >> /safe; sync /safe; read -t 0.3 x <&4; done) > /dev/null 2>&1 < /dev/null &`
const isDurable = `awk '$1 != NR { exit 1 }' /safe && tail -n 1 /safe`

/** To the other host and, where `back` says so, here again. */
async function moveAway(t: TestContext, machine: string, container: string, back: boolean): Promise<void> {
  await home.ok('exec', container, '--', 'sh', '-c', durable)
  const fill = 'dd if=/dev/urandom of=/tmp/big bs=1M count=20 2> /dev/null; md5sum < /tmp/big'
  const sum = await home.ok('exec', container, '--', 'sh', '-c', fill)
  let [counted, safe] = [await count(home, container), 0]
  const away = [there.url, [0, 1]] as const
  for (const [to, found] of back ? [away, ['host', [1, 0]] as const] : [away]) {
    const { sentBytes, downtimeMs } = await home.json<Migrated>('migrate', machine, '--to', to)
    t.diagnostic(`${machine} to ${to}: ${sentBytes} bytes, stood still for ${downtimeMs} ms`)
    assert.deepEqual(files(), found)
    // From the disk, not from what the guest remembers of it.
    const read = 'echo 3 > /proc/sys/vm/drop_caches'
    await home.ok('exec', '--vm', container, '--', 'sh', '-c', read)
    assert.equal(await home.ok('exec', container, '--', 'md5sum', '/tmp/big'), sum.replace('-', '/tmp/big'))
    const [now, later] = [
      await count(home, container),
      Number(await home.ok('exec', container, '--', 'sh', '-c', isDurable)),
    ]
    assert.ok(now > counted && later > safe)
    ;[counted, safe] = [now, later]
  }
  await home.ok('stop', machine)
  assert.deepEqual(files(), [0, 0])
  assert.deepEqual(enginesOf(there.dir), [])
  assert.deepEqual(await home.traces(), [])
}

test('what a container writes moves to another host and back while it goes on writing', async (t) => {
  await home.ok('run', '-d', '--name', 'a', '--disk', '80M', image, '--', 'sleep', '100000')
  await moveAway(t, 'a', 'a', true)
})

test('so does what a container in a nested guest writes, when its level 1 guest moves', async (t) => {
  await home.ok('run', '-d', '--nested', '--memory', '1G', '--name', 'h')
  await home.ok(
    'run',
    '-d',
    '--on',
    'h',
    '--name',
    'c',
    '--memory',
    '256M',
    '--disk',
    '80M',
    image,
    '--',
    'sleep',
    '100000',
  )
  await moveAway(t, 'h', 'h/c', false)
})

test('a hypervisor has a disk no more when its container is removed, and can be saved then', async () => {
  await home.ok('run', '-d', '--nested', '--memory', '1G', '--name', 'h')
  const run = ['run', '--on', 'h', '--memory', '256M', '--disk', '80M', image, '--', 'sh', '-c']
  const scsi = 'ls -d /sys/class/scsi_device/*/device/block/*'
  const attached = async () => (await home.ok('exec', 'h', '--', 'sh', '-c', scsi)).trim().split('\n').length
  await home.ok(...run, 'echo one > /file')
  const before = await attached()
  assert.equal(await home.ok(...run, 'cat /file 2>/dev/null; echo two > /file; cat /file'), 'two\n')
  assert.equal(await attached(), before)
  assert.deepEqual(files(), [0, 0])
  // One that has ended keeps its disk until it is removed.
  await home.ok('run', '-d', '--name', 'over', ...run.slice(1), 'echo four > /file; sync')
  const ended = async () =>
    (await home.json<{ machine: string; phase: string }[]>('ls', '--all')).some(({ phase }) => phase === 'exited')
  for (let tries = 300; tries > 0 && !(await ended()); tries--) await sleep(100)
  assert.deepEqual(files(), [1, 0])
  await home.ok('snapshot', 'create', 'h', '--tag', 'saved')
  await home.ok('rm', '-f', 'h')
  await home.ok('clone', 'saved', '-d', '--name', 'again')
  const clone = run.map((word) => (word === 'h' ? 'again' : word))
  assert.equal(await home.ok(...clone, 'echo three > /file; cat /file'), 'three\n')
  await home.ok('stop', 'again')
  await home.ok('snapshot', 'rm', 'saved')
  assert.deepEqual(await home.traces(), [])
})

interface Fault {
  /** MiB of some 42 that are there then. */
  at: number
  strike: (migrate: ReturnType<Home['start']>) => unknown
  says?: RegExp
}

const faults: Record<string, Fault> = {
  'Ctrl-C': { at: 4, strike: (migrate) => migrate.kill('SIGINT') },
  'kill -9 of nestvm': { at: 4, strike: (migrate) => migrate.kill('SIGKILL') },
  'a cut connection': { at: 4, strike: () => there.breakConnections(), says: /the connection to ssh:\S+ was lost/ },
  'a full file system there': { at: 4, strike: () => writeFull(), says: /could not be sent: No space left/ },
  'the same while its memory is sent': {
    at: 41,
    strike: async () => {
      await sleep(1500)
      writeFull()
      await home.ok('exec', 'b', '--', 'sh', '-c', 'dd if=/dev/zero of=/tmp/more bs=1M count=20 2> /dev/null; sync')
    },
    says: /could not be sent: No space left/,
  },
}

function writeFull(): void {
  try {
    writeFileSync(join(disks.there, 'full'), Buffer.alloc(120 << 20))
  } catch {
    // It is.
  }
}

test('whatever breaks it while disks are sent, the container writes on where it was, and nothing is left there', async (t) => {
  await home.ok('run', '-d', '--name', 'b', '--disk', '80M', image, '--', 'sleep', '100000')
  const fill = 'dd if=/dev/urandom of=/tmp/big bs=1M count=40 2> /dev/null; md5sum < /tmp/big'
  const sum = await home.ok('exec', 'b', '--', 'sh', '-c', `${fill}; sync; ${work}`)
  for (const [name, { at, strike, says = /(?:)/ }] of Object.entries(faults)) {
    const migrate = home.start('migrate', 'b', '--to', there.url, '--bandwidth', '8M')
    const result = finished(migrate)
    const sent = () => readdirSync(disks.there).length > 0 && usedThere() > at
    while (!sent() && migrate.exitCode === null) await sleep(20)
    const used = usedThere()
    await strike(migrate)
    const { status, stderr } = await result
    t.diagnostic(`${name} after ${used} MiB: ${status} ${stderr.split('\n').filter(Boolean).at(-1)}`)
    assert.notEqual(status, 0)
    assert.match(stderr, says)
    execFileSync('rm', ['-f', join(disks.there, 'full')])
    await home.ok('ls')
    assert.equal(recordOf(home, 'b')?.moving, undefined)
    assert.deepEqual(files(), [1, 0])
    assert.deepEqual(enginesOf(there.dir), [])
    assert.equal(await home.ok('exec', 'b', '--', 'sh', '-c', 'md5sum < /tmp/big'), sum)
    await count(home, 'b')
  }
  writeFull()
  const refused = await home.run(['migrate', 'b', '--to', there.url, '--json'])
  const { error } = JSON.parse(refused.stdout)
  assert.equal(error.code, 'NO_SPACE')
  assert.ok(error.details.neededMiB > 40 && error.details.freeMiB < 40, refused.stdout)
  execFileSync('rm', [join(disks.there, 'full')])
  await home.json<Migrated>('migrate', 'b', '--to', there.url)
  assert.equal(await home.ok('exec', 'b', '--', 'sh', '-c', 'md5sum < /tmp/big'), sum)
  await home.ok('stop', 'b')
  assert.deepEqual(await home.traces(), [])
})

/** MiB. */
function usedThere(): number {
  const used = execFileSync('df', ['--output=used', '-BM', disks.there], { encoding: 'utf8' })
  return Number.parseInt(used.split('\n')[1] ?? '', 10)
}
