import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { collectFacts } from './collect.ts'
import { hypervisorSignature } from './cpuid.ts'
import { parseFacts } from './parse.ts'
import { factsSchema } from './schema.ts'

const memory = 'MemTotal: 2048000 kB\nMemAvailable: 1024000 kB'

function parse(sections: Record<string, string>) {
  const all = { machine: 'x86_64', release: '6.12.0', memory, ...sections, end: '' }
  const output = Object.entries(all).map(([name, text]) => `\nMARK ${name}\n${text}\n`)
  return parseFacts(output.join(''), 'MARK', 'host', 0)
}

test('this machine is told of in a document that reads the same again', async () => {
  const facts = await collectFacts(new LocalMachine(), { level: 0 })
  assert.deepEqual(factsSchema.parse(JSON.parse(JSON.stringify(facts))), JSON.parse(JSON.stringify(facts)))
  assert.ok(facts.memory.totalMiB > 100 && facts.cpu.flags.length > 5 && facts.kernel.release !== '')
})

test('a module tells whether it is built in, what keeps it, and its own parameters', () => {
  const { kvm, otherModules } = parse({
    modules: 'kvm live 1 kvm_amd\nkvm_amd built-in -\nvboxdrv live 2 vboxnetflt vboxnetadp',
    parameters: '/sys/module/kvm/parameters/halt_poll_ns 200000\n/sys/module/kvm_amd/parameters/nested 1',
  })
  assert.deepEqual(kvm.modules.kvm, {
    ...{ builtIn: false, users: 1, usedBy: ['kvm_amd'] },
    parameters: { halt_poll_ns: '200000' },
  })
  assert.deepEqual(kvm.modules.kvm_amd, { builtIn: true, users: 0, usedBy: [], parameters: { nested: '1' } })
  assert.deepEqual(otherModules, ['vboxdrv'])
})

test('a device file is read as GNU and as busybox list it', () => {
  const gnu = parse({ device: 'crw-rw---- 1 root kvm 10, 232 Nov 20 10:00 /dev/kvm\nreadable' })
  assert.deepEqual(gnu.kvm.device, {
    ...{ mode: 'crw-rw----', owner: 'root', group: 'kvm', readable: true, writable: false },
  })
  const busybox = parse({ device: 'crw-------    1 root     root       10, 232 Nov 21 14:41 /dev/kvm' })
  assert.equal(busybox.kvm.device?.group, 'root')
  assert.equal(parse({}).kvm.device, undefined)
})

test('a log that may not be read is not one without lines', () => {
  assert.equal(parse({ log: '' }).log, undefined)
  assert.deepEqual(parse({ log: 'readable' }).log, [])
  assert.deepEqual(parse({ log: 'readable\n[ 1.0] kvm [1]: HYP mode not available' }).log?.length, 1)
})

test('of the kernel arguments only those are kept that bear on virtualization', () => {
  const { kernel } = parse({
    cmdline: 'root=UUID=1234 kvm-arm.mode=nested luks.key=secret quiet kvm_intel.nested=1 token=x',
    config: 'CONFIG_KVM=m\n# CONFIG_KVM_AMD is not set',
  })
  assert.deepEqual(kernel.arguments, ['kvm-arm.mode=nested', 'kvm_intel.nested=1'])
  assert.deepEqual(kernel.config, { KVM: 'm', KVM_AMD: 'n' })
})

test('processors are counted from ranges', () => {
  assert.equal(parse({ cpus: '0-3,8,10-11' }).cpu.count, 7)
  assert.equal(parse({ cpus: '0' }).cpu.count, 1)
  assert.equal(parse({}).cpu.count, 1)
})

test('what a mainframe and an Arm machine tell is found under its own names', () => {
  const z = parse({
    machine: 's390x',
    cpuinfo: 'vendor_id       : IBM/S390\nfeatures\t: esan3 zarch sie ',
    sysinfo: 'Manufacturer:         IBM\nVM00 Control Program: KVM/Linux',
  })
  assert.ok(z.cpu.flags.includes('sie'))
  assert.equal(z.sysinfo['VM00 Control Program'], 'KVM/Linux')
  const arm = parse({
    ...{ machine: 'aarch64', gic: 'GIC-0', capabilities: '240 1\n241 0' },
    cpuinfo: 'processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40',
  })
  assert.equal(arm.cpu.model, 'implementer 0x41, part 0xd40')
  assert.deepEqual(arm.kvm.capabilities, { armEl2: 1, armEl2E2h0: 0 })
})

test('where no program can be run, the tool cpuid tells the same', () => {
  const facts = parse({
    'cpuid-tool': `CPU:
   0x00000001 0x00: eax=0x000306c3 ebx=0x00100800 ecx=0xfffaf3bf edx=0xbfebfbff
   0x00000004 0x01: eax=0x1c004122 ebx=0x01c0003f ecx=0x0000003f edx=0x00000000
   0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d`,
  })
  assert.equal(facts.cpu.cpuid['1:0'], '000306c3 00100800 fffaf3bf bfebfbff')
  assert.equal(hypervisorSignature(facts), 'KVMKVMKVM')
  assert.ok(!('4:1' in facts.cpu.cpuid))
})

test('an answer that was cut off is refused, and nothing in it can begin a section', () => {
  assert.throws(() => parseFacts('\nMARK machine\nx86_64\n', 'MARK', 'outer', 1), { code: 'FACTS_INCOMPLETE' })
  const { kvm } = parse({ log: 'readable\n[1] say kvm\nOTHER misc\n232 kvm' })
  assert.equal(kvm.registered, false)
})
