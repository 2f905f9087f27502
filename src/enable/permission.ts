import { NestvmError } from '../store/error.ts'
import { type CommandStep, commands, type FileStep, type Plan, type Request, within } from './plan.ts'
import type { Seen } from './seen.ts'

const ruleFile = '/etc/udev/rules.d/65-nestvm-kvm.rules'
const rule =
  '# Written by nestvm enable; nestvm enable --undo removes it.\nKERNEL=="kvm", SUBSYSTEM=="misc", GROUP="kvm", MODE="0660", OPTIONS+="static_node=kvm"\n'

/**
 * Lets a user open /dev/kvm: as a member of the group that may, or first, where the device is root's alone, by a udev
 * rule that gives it to the group kvm. Throws `NO_SUCH_USER` and `NO_TOOL`.
 */
export function planPermission({ seen, root, user }: Request): Plan {
  const platform = 'permission'
  if (user === 'root') return { platform, effect: 'already', steps: [], notes: [], summary: 'root may open /dev/kvm' }
  if (root === '/' && seen.groups === undefined)
    throw new NestvmError('NO_SUCH_USER', `there is no user ${user}`, { hint: '--user NAME' })
  const device = root === '/' ? seen.device : undefined
  if (device && open(device, seen)) {
    return {
      platform,
      effect: 'already',
      steps: [],
      notes: [],
      summary: `${user} may open /dev/kvm, as a member of ${device.group}`,
    }
  }
  const byGroup = device !== undefined && device.group !== 'root' && groupMayWrite(device.mode)
  const group = byGroup ? device.group : 'kvm'
  const steps = [
    ...(byGroup ? [] : createGroup(seen)),
    ...(byGroup ? [] : deviceCommands(seen)),
    ...joinGroup(seen, user, group),
  ]
  const file: FileStep = {
    kind: 'file',
    path: within(root, ruleFile),
    before: seen.files.get(ruleFile),
    after: rule,
    why: 'the device comes up as one of the group kvm',
  }
  const { steps: run, notes } = commands(root, steps)
  return {
    platform,
    effect: 'login',
    steps: [...(byGroup || seen.files.get(ruleFile) === rule ? [] : [file]), ...run],
    notes:
      device || root !== '/' ? notes : ['there is no /dev/kvm yet: the module kvm_intel or kvm_amd makes it', ...notes],
    summary: device
      ? `/dev/kvm is ${device.owner}:${device.group} ${device.mode}, not for ${user}`
      : `${user} is to be allowed /dev/kvm`,
  }
}

const groupMayWrite = (mode: string) => (Number.parseInt(mode, 8) & 0o060) === 0o060

function open({ mode, owner, group }: NonNullable<Seen['device']>, { groups, userName }: Seen): boolean {
  const bits = Number.parseInt(mode, 8)
  if ((bits & 0o006) === 0o006) return true
  return (owner === userName && (bits & 0o600) === 0o600) || (groupMayWrite(mode) && groups?.includes(group) === true)
}

function createGroup({ files, programs }: Seen): CommandStep[] {
  if (/^kvm:/m.test(files.get('/etc/group') ?? '')) return []
  const why = 'there is no group kvm'
  if (programs.has('groupadd'))
    return [{ kind: 'command', argv: ['groupadd', '--system', 'kvm'], undo: [['groupdel', 'kvm']], why }]
  if (programs.has('addgroup'))
    return [{ kind: 'command', argv: ['addgroup', '-S', 'kvm'], undo: [['delgroup', 'kvm']], why }]
  throw noTool('groupadd')
}

function deviceCommands({ programs, device }: Seen): CommandStep[] {
  if (programs.has('udevadm')) {
    const reload = ['udevadm', 'control', '--reload']
    const trigger = ['udevadm', 'trigger', '--action=add', '--sysname-match=kvm']
    return [
      { kind: 'command', argv: reload, undo: [reload], why: 'udev reads its rules' },
      { kind: 'command', argv: trigger, undo: restore(device), why: 'and applies them' },
    ]
  }
  if (!device) return []
  return [
    {
      kind: 'command',
      argv: ['chown', `${device.owner}:kvm`, '/dev/kvm'],
      undo: [],
      why: 'there is no udev: it holds until the next start',
    },
    { kind: 'command', argv: ['chmod', '0660', '/dev/kvm'], undo: restore(device), why: 'for the group' },
  ]
}

const restore = (device: Seen['device']) =>
  device
    ? [
        ['chown', `${device.owner}:${device.group}`, '/dev/kvm'],
        ['chmod', `0${device.mode}`, '/dev/kvm'],
      ]
    : []

function joinGroup({ programs, groups }: Seen, user: string, group: string): CommandStep[] {
  if (groups?.includes(group)) return []
  const why = `members of ${group} may open /dev/kvm`
  if (programs.has('usermod')) {
    const undo = programs.has('gpasswd') ? [['gpasswd', '-d', user, group]] : []
    return [{ kind: 'command', argv: ['usermod', '-aG', group, user], undo, why }]
  }
  if (programs.has('addgroup'))
    return [{ kind: 'command', argv: ['addgroup', user, group], undo: [['delgroup', user, group]], why }]
  throw noTool('usermod')
}

function noTool(name: string): NestvmError {
  return new NestvmError('NO_TOOL', `there is no ${name} on that machine`, {
    hint: `install the package with ${name}, on Debian passwd`,
  })
}
