import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { NestvmError } from '../store/error.ts'
import { parseConfig, refusedOptions, strangeLines } from './config.ts'
import { explainRefused } from './kconfig.ts'
import { type MakeRequest, make } from './make.ts'
import type { Profile } from './profile.ts'

/**
 * Makes the kernel's configuration: the base, the fragments over it, and what follows from both by Linux's rules.
 * Throws `BAD_PROFILE` for a fragment that is none, and `KERNEL_CONFIG` when an option is not as it was asked for, with
 * the reason where the rules tell.
 */
export async function configure(request: MakeRequest, profile: Profile): Promise<void> {
  const { tree, output, linuxArch } = request
  const { base, fragments } = profile
  checkFragments(profile)
  const config = join(output, '.config')
  if ('target' in base) await make(request, [base.target])
  else await writeFile(config, base.file.text)
  // As scripts/kconfig/merge_config.sh does: conf takes the last of several lines for one option.
  const requested = parseConfig(fragments.map(({ text }) => text).join('\n'))
  const lines = (await readFile(config, 'utf8'))
    .split('\n')
    .filter((line) => ![...parseConfig(line).keys()].some((name) => requested.has(name)))
  await writeFile(config, [...lines, ...fragments.map(({ text }) => text)].join('\n'))
  await make(request, ['olddefconfig'])

  const resulting = parseConfig(await readFile(config, 'utf8'))
  const refused = refusedOptions(requested, resulting)
  const modules = [...resulting].flatMap(([name, value]) => (value === 'm' ? [name] : []))
  if (modules.length > 0) {
    throw new NestvmError(
      'KERNEL_CONFIG',
      `guests have no modules of a built kernel, and ${modules.length} are asked for`,
      {
        hint: 'set CONFIG_MODULES to n, or each of them to y or n',
        details: { modules },
      },
    )
  }
  if (refused.length === 0) return
  const reasons = await explainRefused(tree, linuxArch, refused, resulting)
  throw new NestvmError(
    'KERNEL_CONFIG',
    `${refused.length} of the options that ${profile.name} asks for did not stick:\n${reasons.map((reason) => `  ${reason}`).join('\n')}`,
    {
      hint: 'add to the fragment what they need, or take them out of it',
      details: { profile: profile.path, refused, reasons },
    },
  )
}

function checkFragments({ path: profile, fragments }: Profile): void {
  for (const { path, text } of fragments) {
    const [strange] = strangeLines(text)
    if (strange === undefined) continue
    throw new NestvmError('BAD_PROFILE', `${path} has a line that is no option: ${strange}`, {
      hint: 'write CONFIG_NAME=y or: # CONFIG_NAME is not set',
      details: { profile, fragment: path, line: strange },
      exitStatus: 2,
    })
  }
}
