import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '../../src/machine/keys.ts'
import type { Report } from '../../src/report/report.ts'
import { finished, Home } from './nestvm.ts'
import { SshServer, trust } from './ssh-server.ts'

/*
 * One stack of three levels, emulated wherever this runs, serves all tests of this file. Each level has something that
 * must not be told, where programs write such things; all of it has this word in it, in one case or the other.
 */
const plum = /plum/i
const home = new Home()
const [l1, l2, l3] = ['r', 'r/l2', 'r/l2/l3'] as const
const where = { 0: 'L0', 1: 'L1-r', 2: 'L2-r.l2', 3: 'L3-r.l2.l3' } as const
let other: ChildProcess | undefined
let report: Report
let dir = ''

before(async () => {
  plantOnHost()
  const command = 'echo up; sleep 100000; : --password plumcommand'
  await home.ok(
    'run',
    '-d',
    '--no-snapshot',
    '--accel',
    'tcg',
    '--depth',
    '3',
    '--memory',
    '256M',
    '--name',
    'r',
    '--',
    'sh',
    '-c',
    command,
  )
  await Promise.all([l1, l2, l3].map(plantInGuest))
  report = await home.json<Report>('report', l3, '-o', join(home.dir, 'report.tar.gz'))
  execFileSync('tar', ['-xzf', report.file, '-C', home.dir])
  const names = readdirSync(home.dir).filter((name) => name.startsWith('nestvm-report-'))
  assert.equal(names.length, 1)
  dir = join(home.dir, names[0] ?? '')
})
after(async () => {
  other?.kill('SIGKILL')
  await home[Symbol.asyncDispose]()
})

/** Tools that tell serial numbers, a VM of somebody else's with secrets on its command line, and an environment. */
function plantOnHost(): void {
  const bin = join(home.dir, 'bin')
  mkdirSync(bin)
  const said = {
    dmidecode:
      'System Information\n\tSerial Number: PF0PLUM7\n\tUUID: 6f2c70cc-2c7d-11b2-a85c-e5a1c0a5a5a5\n\tAsset Tag: Plum 12',
    x86info: 'x86info v1.31pre\nCPU serial number: 0000-PLUM-0000',
    virsh: '10.0.0',
  }
  for (const [name, text] of Object.entries(said)) {
    writeFileSync(join(bin, name), `#!/bin/sh\ncat << 'EOF'\n${text}\nEOF\n`, { mode: 0o755 })
  }
  home.env.PATH = `${bin}:${process.env.PATH}`
  home.env.PLUM_TOKEN = 'tokenplum123'
  home.env.NESTVM_MIRROR = 'http://plumuser:plumpass@mirror.plum.example/debian'
  const secrets = [
    '-object',
    'secret,id=s,data=plumqemu',
    '-device',
    'virtio-net-pci,mac=52:54:00:71:75:6d',
    'tokenplum123',
  ]
  other = spawn('/bin/sh', ['-c', 'sleep 100000; :', ...secrets], { argv0: 'qemu-system-x86_64', stdio: 'ignore' })
}

async function plantInGuest(machine: string): Promise<void> {
  const script = `echo plumhost > /proc/sys/kernel/hostname
echo 'test: PASSWORD=plumpassword serial number: PLUMSERIAL9, MAC 02:70:6c:75:6d:01 at 192.0.2.77 of plumuser@plumhost.plum.example' > /dev/kmsg
(exec -a qemu-system-x86_64 sh -c 'sleep 100000; :' -object secret,id=s,data=plumguest > /dev/null 2>&1 < /dev/null &)`
  await home.ok('exec', machine, '--', 'sh', '-c', script)
}

const read = (level: keyof typeof where, file: string) => readFileSync(join(dir, where[level], file), 'utf8')

/** "Running nested guests with KVM", Information to collect: what, in which of our files, and how one knows it. */
const kernelsList: { what: string; files: string[]; says: RegExp; tool?: string }[] = [
  { what: 'kernel version', files: ['kernel.txt'], says: /^Linux .*\nLinux version / },
  { what: 'libvirt version', files: ['libvirt.txt'], says: /^virsh: 10/m, tool: 'virsh' },
  { what: 'QEMU version', files: ['qemu.txt'], says: /QEMU emulator version \d+\.\d+/ },
  { what: 'QEMU command line of the level above it', files: ['qemu-commands.txt'], says: /^-machine\nmicrovm/m },
  { what: 'cpuinfo', files: ['cpuinfo.txt'], says: /^flags\s*:/m },
  { what: 'lscpu', files: ['lscpu.txt'], says: /^(Architecture|vulnerabilities\/)/m },
  { what: 'dmesg', files: ['dmesg.txt'], says: /Linux version [\s\S]*Command line/ },
  { what: 'x86info -a', files: ['x86info.txt', 'cpuid.txt'], says: /^x86info|0x00000001 0x00: eax=/ },
  { what: 'dmidecode', files: ['dmidecode.txt'], says: /^System Information/m, tool: 'dmidecode' },
]

for (const { what, files, says, tool } of kernelsList) {
  test(`the kernel's list: ${what}, of L0 and of L1`, async () => {
    for (const level of [0, 1] as const) {
      const told = report.levels.find((one) => one.level === level)
      const present = files.filter((file) => told?.files.some((one) => one.file === file))
      if (present.length > 0) assert.match(read(level, present[0] ?? ''), says)
      else {
        // What is not there is said, and it is true.
        assert.ok(tool, `L${level} has no ${files}`)
        assert.match(told?.absent.find(({ file }) => file === files[0])?.why ?? '', /^there is no|has no DMI/)
        assert.equal((await home.run(['exec', l1, '--', 'which', tool])).status, 1)
      }
    }
  })
}

test("the command lines of L1, L2 and L3 are there, and the whole log of a guest's kernel", async () => {
  assert.match(read(0, 'qemu-commands.txt'), /^nestvm-r,debug-threads=on$/m)
  assert.match(read(1, 'qemu-commands.txt'), /^nestvm-r\/l2,debug-threads=on$/m)
  assert.match(read(2, 'qemu-commands.txt'), /^nestvm-r\/l2\/l3,debug-threads=on$/m)
  const log = (await home.ok('exec', l1, '--', 'dmesg'))
    .trim()
    .split('\n')
    .map((line) => line.slice(0, 14))
  const ours = read(1, 'dmesg.txt')
    .trim()
    .split('\n')
    .map((line) => line.slice(0, 14))
  assert.deepEqual(ours, log.slice(0, ours.length))
  assert.match(read(1, 'dmesg.txt'), /test: PASSWORD=<secret-\d+>/)
})

test('nestvm tells what it knows of each level: parameters, counters, capabilities, findings, records, logs', () => {
  for (const level of [1, 2] as const) {
    assert.match(read(level, 'modules.txt'), /kvm_amd\/parameters\/nested:1/)
    assert.match(read(level, 'kvm-counters.txt'), /^exits:[1-9]/m)
    const facts = JSON.parse(read(level, 'facts.json'))
    assert.equal(facts.probe.code, 'KVM_OK')
    assert.ok(facts.kvm.capabilities.nestedState > 0)
    assert.ok(JSON.parse(read(level, 'findings.json')).some(({ id }: { id: string }) => id === 'amd-nested'))
  }
  for (const level of [1, 2, 3] as const) {
    const record = JSON.parse(read(level, 'nestvm/record.json'))
    assert.deepEqual([record.level, record.hostKey], [level, ''])
    assert.match(read(level, 'nestvm/kernel-log.txt'), /nestvm: up/)
  }
})

test('the summary states the nesting, proves KVM on KVM, and names emulation', () => {
  const summary = readFileSync(join(dir, 'summary.md'), 'utf8')
  assert.match(summary, /This is a nested setup: 3 levels/)
  assert.match(summary, /L1 \(r\) is emulated by QEMU \(TCG\)/)
  assert.match(
    summary,
    /KVM on KVM: L3 \(r\/l2\/l3\) runs on the KVM of L2.*L1's KVM entered guests of r\/l2 [1-9]\d* times/,
  )
  assert.deepEqual(
    report.proofs.map(({ on, kvmOnKvm }) => [on, kvmOnKvm]),
    [
      ['emulation', false],
      ['kvm', false],
      ['kvm', true],
    ],
  )
})

test('nothing of what was planted on any level is in it, and it says how much was taken out', () => {
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8', withFileTypes: true }).filter((one) =>
    one.isFile(),
  )
  assert.ok(files.length > 40, `${files.length} files`)
  const sock = [/52:54:00:71:75:6d/i, /02:70:6c/i, /192\.0\.2\.77/, /6f2c70cc/]
  for (const { parentPath, name } of files) {
    const text = readFileSync(join(parentPath, name), 'utf8')
    for (const secret of [plum, ...sock]) {
      assert.doesNotMatch(text.split('\n').find((line) => secret.test(line)) ?? '', secret, join(parentPath, name))
    }
  }
  for (const { values, places } of Object.values(report.redactions)) assert.ok(values > 0 && places >= values)
  // One name for one value, on all levels: the guests' password is the same.
  const names = ([1, 2, 3] as const).map((level) => /test: PASSWORD=(<secret-\d+>)/.exec(read(level, 'dmesg.txt'))?.[1])
  assert.equal(new Set(names).size, 1)
})

test('another host is asked over ssh', async () => {
  const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))
  after(() => there.close())
  await there.listen()
  trust(there, home)
  const { levels } = await home.json<Report>('report', there.url, '-o', join(home.dir, 'there.tar.gz'))
  assert.deepEqual(
    levels.map(({ level, problem }) => [level, problem]),
    [[0, undefined]],
  )
  assert.ok(levels[0]?.files.some(({ file }) => file === 'facts.json'))
})

test('Ctrl-C leaves no half archive', async () => {
  const file = join(home.dir, 'half/report.tar.gz')
  mkdirSync(join(home.dir, 'half'))
  const child = home.start('report', '-o', file)
  const result = finished(child)
  await sleep(1500)
  child.kill('SIGINT')
  assert.equal((await result).status, 130)
  assert.deepEqual(readdirSync(join(home.dir, 'half')), [])
})

test('a level that does not answer is said, and does not hold up the others', async () => {
  const { levels } = await home.json<{ levels: { enginePid: number }[] }>('inspect', l3)
  await home.ok('exec', l2, '--', 'kill', '-STOP', String(levels[2]?.enginePid))
  const late = await home.json<Report>('report', '--timeout', '30s', '-o', join(home.dir, 'late.tar.gz'))
  // L2 may be too slow for this limit on a busy machine.
  const problems = late.levels.map(({ level, problem }) => [level, problem]).filter(([level]) => level !== 2)
  assert.deepEqual(problems, [
    [0, undefined],
    [1, undefined],
    [3, 'r/l2/l3 did not answer within 30 s'],
  ])
  // What its engine has written is there nevertheless.
  assert.ok(late.levels[3]?.files.some(({ file }) => file === 'nestvm/record.json'))
  const { stdout } = await home.run(['report', 'nobody', '--json'])
  assert.equal(JSON.parse(stdout).error.code, 'NO_SUCH_MACHINE')
})
