import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { finished, Home, said } from './nestvm.ts'
import { Volumes } from './volumes.ts'

// Two guests, of level 1 and 2, share one directory of the host.
const home = new Home()
const share = join(home.dir, 'share')
const guests = ['v', 'v/l2']
let volumes: Volumes

const exercise = join(home.dir, 'exercise')
const source = join(import.meta.dirname, 'exercise.c')
const compiled = spawnSync('cc', ['-static', '-o', exercise, source]).status === 0
const noCompiler = compiled ? false : 'it needs a C compiler and a static libc'

before(async () => {
  mkdirSync(share)
  volumes = await Volumes.of(home, share)
  await home.ok('run', '-d', '--depth', '2', '--name', 'v')
  for (const guest of guests) {
    await volumes.mount(guest)
    if (!noCompiler) await home.ok('cp', exercise, `${guest}:/tmp/exercise`)
  }
})
after(async () => {
  await home.run(['rm', '-f', 'v'])
  await volumes[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const sh = (guest: string, script: string) => home.ok('exec', guest, '--', 'sh', '-c', script)

test('what one side writes the other reads within a second, at both levels', async () => {
  for (const guest of guests) {
    await sh(guest, 'echo from the guest > /rw/file; cat /rw/file > /dev/null')
    assert.equal(readFileSync(join(share, 'file'), 'utf8'), 'from the guest\n')
    writeFileSync(join(share, 'file'), 'from the host\n')
    writeFileSync(join(share, 'fresh'), '')
    await sleep(1000)
    assert.equal(await sh(guest, 'cat /rw/file; ls /rw'), 'from the host\nfile\nfresh\n')
    rmSync(join(share, 'fresh'))
  }
})

test('modes, links, times and renames are as on a disk', async () => {
  for (const guest of guests) {
    const script = `cd /rw && rm -rf * && mkdir d && echo text > d/a && chmod 640 d/a && ln d/a hard
      ln -s /proc/sys/kernel/hostname abs && ln -s d/a rel && echo other > over && mv over hard && touch -d '2001-02-03 04:05:06' d/a
      stat -c '%a %h %Y' d/a; cat rel hard; cat abs; readlink abs`
    const name = guest.replace('/', '-')
    assert.equal(await sh(guest, script), `640 1 981173106\ntext\nother\n${name}\n/proc/sys/kernel/hostname\n`)
    assert.equal(readlinkSync(join(share, 'abs')), '/proc/sys/kernel/hostname')
    assert.equal(statSync(join(share, 'd/a')).mode & 0o7777, 0o640)
  }
})

test('a file that is removed while it is open lives on until it is closed', async () => {
  for (const guest of guests) {
    const script = 'cd /rw && exec 5<> gone && echo text >&5 && rm gone && ls -a | grep -c gone; cat /proc/self/fd/5'
    assert.equal(await sh(guest, script), '0\ntext\n')
  }
})

test('a lock of one guest is in the way of the other', { skip: noCompiler }, async () => {
  const holding = home.start('exec', 'v', '--', '/tmp/exercise', 'lock', '/rw/lock', '5')
  const held = finished(holding)
  await said(holding, 'taken')
  assert.equal((await home.run(['exec', 'v/l2', '--', '/tmp/exercise', 'lock', '/rw/lock', '0'])).stdout, 'busy\n')
  await held
  assert.equal(await home.ok('exec', 'v/l2', '--', '/tmp/exercise', 'lock', '/rw/lock', '0'), 'taken\n')
})

test('a shared mapping is a window on the file, also when it is removed', { skip: noCompiler }, async () => {
  for (const guest of guests) {
    await sh(guest, 'cd /rw && rm -f linked && /tmp/exercise map mapped')
    const content = readFileSync(join(share, 'linked'))
    assert.equal(content.subarray(5000, 5006).toString(), 'Mapped')
    assert.equal(content.subarray(0, 8).toString(), 'exercise')
  }
})

test('holes take no space, and what fsync has returned for is on the host', async () => {
  await sh('v', 'dd if=/dev/zero of=/rw/sparse bs=1 count=1 seek=1000000000 conv=fsync 2> /dev/null')
  const { size, blocks } = statSync(join(share, 'sparse'))
  assert.equal(size, 1_000_000_001)
  assert.ok(blocks < 100)
})

test('a directory of 10,000 entries is listed whole', async () => {
  mkdirSync(join(share, 'large'))
  for (let index = 0; index < 10_000; index++) writeFileSync(join(share, 'large', `entry-${index}`), '')
  for (const guest of guests) assert.equal(await sh(guest, 'ls /rw/large | sort -u | wc -l'), '10000\n')
  await sh('v', 'cd /rw/large && rm entry-?? entry-???')
  assert.equal(readdirSync(join(share, 'large')).length, 9010)
})

test('a read-only volume refuses every change', async () => {
  writeFileSync(join(share, 'kept'), 'text')
  for (const guest of guests) {
    // Another mount of it that asks for more gets no more.
    const script = `mkdir -p /tmp/m; mount -i -t nfs4 -o vers=4.1,addr=127.0.0.1,clientaddr=0.0.0.0,port=2049,rw 127.0.0.1:/ro /tmp/m
      for dir in /ro /tmp/m; do touch $dir/new; rm $dir/kept; echo x > $dir/kept; mkdir $dir/d; done 2>&1 | grep -c 'Read-only file system'
      umount /tmp/m`
    assert.equal(await sh(guest, script), '8\n')
    assert.deepEqual(readFileSync(join(share, 'kept'), 'utf8'), 'text')
  }
})
