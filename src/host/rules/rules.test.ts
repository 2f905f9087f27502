import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { heed } from './heed.ts'
import {
  emulatedRule,
  type NestedState,
  nestedStateRule,
  platformOf,
  processorRule,
  qemuRule,
  rulesFor,
} from './judge.ts'
import { comparisons, guestKinds, type Holds, platforms, type Rule, rules, type Versions } from './table.ts'

test('whatever there is, just one rule of each aspect holds, and each rule holds for something', () => {
  const held = new Set<Rule>()
  const one = (found: Rule[], what: unknown) => {
    assert.equal(found.length, 1, `${JSON.stringify(what)}: ${found.map(({ id }) => id)}`)
    for (const rule of found) held.add(rule)
  }
  for (const platform of platforms)
    for (const accel of ['kvm', 'tcg'] as const)
      for (const guest of guestKinds)
        for (const kernel of ['4.18.0-553.el8', '5.2.21', '5.3.0', '5.7.19', '5.8.0-rc1', '6.12.48+deb13-amd64'])
          for (const qemu of ['4.1.1', '4.2.0', '5.1.0', '5.2.0', '10.2.0'])
            for (const capability of [false, true]) {
              const given = { platform, accel, guest, kernel, qemu, capability }
              one(rulesFor('nested-state', given), given)
            }
  for (const qemus of ['same', 'different'] as const) one(rulesFor('qemu', { qemus }), qemus)
  for (const processor of comparisons) one(rulesFor('processor', { processor }), processor)
  assert.deepEqual(
    rules.filter((rule) => !held.has(rule)),
    [],
  )
  assert.equal(new Set(rules.map(({ id }) => id)).size, rules.length)
})

test('what may be done with a guest in which guests run, by KVM and QEMU', () => {
  const state = { accel: 'kvm', guest: 'nesting', kernel: '6.12.48', qemu: '11.1.0' } as const
  const cases: [NestedState, string, Rule['verdict']][] = [
    [{ ...state, platform: 'intel' }, 'intel-live', 'safe'],
    [{ ...state, platform: 'intel', kernel: '5.2.21' }, 'intel-old-kernel', 'lost'],
    [{ ...state, platform: 'intel', kernel: '4.18.0-553.el8', capability: true }, 'intel-backport', 'untested'],
    [{ ...state, platform: 'intel', qemu: '4.1.1' }, 'intel-old-qemu', 'lost'],
    [{ ...state, platform: 'amd' }, 'amd-live', 'untested'],
    [{ ...state, platform: 'amd', kernel: '5.7.1' }, 'amd-old-kernel', 'lost'],
    [{ ...state, platform: 'amd', qemu: '5.1.0' }, 'amd-old-qemu', 'lost'],
    [{ ...state, platform: 'amd', guest: 'hypervisor', kernel: '4.19.0' }, 'idle-hypervisor', 'safe'],
    [{ ...state, platform: 'amd', guest: 'plain', kernel: '4.19.0' }, 'plain-guest', 'safe'],
    [{ ...state, platform: 'arm64', kernel: '7.2.0' }, 'arm64-live', 'lost'],
    [{ ...state, platform: 'arm64', kernel: '7.2.0', guest: 'hypervisor' }, 'idle-arm64', 'untested'],
    [{ ...state, platform: 's390x', kernel: '4.4.0', qemu: '2.11.0' }, 's390x', 'safe'],
    [{ ...state, platform: 'elsewhere' }, 'elsewhere', 'lost'],
  ]
  for (const [given, id, verdict] of cases) {
    const rule = nestedStateRule(given)
    assert.deepEqual([rule.id, rule.verdict], [id, verdict], JSON.stringify(given))
  }
  assert.equal(emulatedRule('x86_64', 'nesting').verdict, 'safe')
  assert.equal(emulatedRule('arm64', 'hypervisor').verdict, 'lost')
  assert.equal(emulatedRule('arm64', 'plain').verdict, 'safe')
})

test('the platform is that of the extension', () => {
  const named = [
    platformOf('x86_64', 'AuthenticAMD'),
    platformOf('x86_64', 'HygonGenuine'),
    platformOf('x86_64', 'GenuineIntel'),
    platformOf('x86_64', undefined),
    platformOf('aarch64', undefined),
    platformOf('s390x', undefined),
    platformOf('ppc64le', undefined),
  ]
  assert.deepEqual(named, ['amd', 'amd', 'intel', 'elsewhere', 'arm64', 's390x', 'elsewhere'])
})

test('a refusal names the rule, its source and the ways out, and --force helps against what is untested alone', () => {
  const intent = {
    what: 'a cannot be saved',
    seen: 'Linux 6.1',
    command: 'nestvm stop a/b',
    forceCommand: 'it --force',
  }
  const live = nestedStateRule({ platform: 'amd', accel: 'kvm', guest: 'nesting', kernel: '6.1', qemu: '11.1' })
  assert.throws(() => heed(live, { ...intent, force: false }), {
    code: 'NESTED_STATE_LOST',
    message: /^a cannot be saved: .* \(rule amd-live: Linux 6\.1\)$/,
    hint: 'stop the guests in it first: nestvm stop a/b, or: it --force',
    details: { rule: 'amd-live', verdict: 'untested', source: live.source },
  })
  heed(live, { ...intent, force: true })
  const old = nestedStateRule({ platform: 'amd', accel: 'kvm', guest: 'nesting', kernel: '5.4', qemu: '11.1' })
  assert.throws(() => heed(old, { ...intent, force: true }), {
    code: 'NESTED_STATE_LOST',
    hint: /^[^:]*: nestvm stop a\/b$/,
  })
  assert.throws(() => heed(processorRule('fewer'), { ...intent, force: true }), { code: 'PROCESSOR_MISMATCH' })
  assert.throws(() => heed(processorRule('more'), { ...intent, force: false }), { code: 'NOT_KNOWN_SAFE' })
  assert.throws(() => heed(qemuRule('different'), { ...intent, force: false }), { code: 'NOT_KNOWN_SAFE' })
  for (const rule of rules) {
    if (rule.verdict === 'safe') heed(rule, { ...intent, force: false })
    else assert.notEqual(rule.wayOut, '', rule.id)
  }
})

for (const [document, aspects] of [
  ['snapshots', ['nested-state']],
  ['migration', ['qemu', 'processor']],
] as const) {
  // UPDATE_GOLDEN=1 writes the table anew, for git diff to show.
  test(`docs/${document}.md has the rules`, () => {
    const path = new URL(`../../../docs/${document}.md`, import.meta.url)
    const text = readFileSync(path, 'utf8')
    const shown = rules.filter(({ aspect }) => aspects.some((one) => one === aspect))
    const head = '| rule | for | verdict | why | source |\n|---|---|---|---|---|\n'
    const table = `${head}${shown.map(row).join('')}`
    const found = /^\| rule \|(?:.*\n)+?(?=\n)/m.exec(text)?.[0]
    if (process.env.UPDATE_GOLDEN && found)
      writeFileSync(
        path,
        text.replace(found, () => table),
      )
    else assert.equal(found, table)
  })
}

function row({ id, holds, verdict, sure, why, source }: Rule): string {
  const certainty = sure === 'certain' ? '' : ` (${sure})`
  return `| \`${id}\` | ${conditions(holds)} | ${verdict}${certainty} | ${why} | ${source} |\n`
}

function conditions({ platform, accel, guest, kernel, qemu, capability, qemus, processor }: Holds): string {
  return [
    ...(guest ?? []).map((kind) => words[kind]),
    ...(accel ?? []).map((how) => words[how]),
    ...(platform ? [platform.map((one) => words[one]).join(' or ')] : []),
    ...versions('Linux', kernel),
    ...versions('QEMU', qemu),
    ...(capability ?? []).map((has) => `${has ? 'with' : 'without'} KVM_CAP_NESTED_STATE`),
    ...(qemus ?? []).map((which) => words[which]),
    ...(processor ?? []).map((which) => (which === 'same' ? 'the same processor' : words[which])),
  ]
    .join(', ')
    .replace('a hypervisor without guests, a hypervisor with guests', 'a hypervisor')
}

const words = {
  ...{ plain: 'no hypervisor', hypervisor: 'a hypervisor without guests', nesting: 'a hypervisor with guests' },
  ...{ kvm: 'on KVM', tcg: 'emulated' },
  ...{ intel: 'Intel', amd: 'AMD', arm64: 'arm64', s390x: 's390x', elsewhere: 'others' },
  ...{ same: 'one version of QEMU on both sides', different: 'two versions of QEMU' },
  ...{ more: 'more features there', model: 'another model there', fewer: 'fewer features there' },
  ...{
    maker: 'another maker there',
    offered: 'a named model, offered there',
    lacking: 'a named model, not whole there',
  },
}

function versions(name: string, { from, below }: Versions = {}): string[] {
  return [
    ...(from ? [`${name} ${from.join('.')} or newer`] : []),
    ...(below ? [`${name} before ${below.join('.')}`] : []),
  ]
}
