/**
 * The modules to load, each after those it depends on. `wanted` may use - or _; what is built into the kernel is
 * left out. Throws for a module that the kernel has in neither form.
 *
 * @param dependenciesOf names of the modules that one needs, undefined when there is no such module
 * @returns names with _ throughout, as the kernel shows them
 */
export async function loadOrder(
  wanted: readonly string[],
  builtIn: ReadonlySet<string>,
  dependenciesOf: (name: string) => Promise<string[] | undefined>,
): Promise<string[]> {
  const order = new Set<string>()
  async function add(name: string): Promise<void> {
    if (builtIn.has(name) || order.has(name)) return
    const dependencies = await dependenciesOf(name)
    if (dependencies === undefined) throw new Error(`the kernel has no module ${name}`)
    for (const dependency of dependencies) await add(moduleName(dependency))
    order.add(name)
  }
  for (const name of wanted) await add(moduleName(name))
  return [...order]
}

/** `kernel/drivers/crypto/virtio-rng.ko.xz` to `virtio_rng`: the kernel takes - and _ for the same. */
export function moduleName(path: string): string {
  const base = path.slice(path.lastIndexOf('/') + 1).replace(/\.ko(\.\w+)?$/, '')
  return base.replaceAll('-', '_')
}

/** What the `depends=` line of a module's .modinfo section names. */
export function moduleDependencies(module: Buffer): string[] {
  const [value = ''] = moduleInfo(module, 'depends')
  return value === '' ? [] : value.split(',')
}

/** The patterns by which the kernel asks for the module, for example `fs-overlay`. */
export function moduleAliases(module: Buffer): string[] {
  return moduleInfo(module, 'alias')
}

/** The values of a key of the section .modinfo: NUL-separated KEY=VALUE strings. */
function moduleInfo(module: Buffer, key: string): string[] {
  // A module with nothing in front of these in the section does not occur: its license or its version comes first.
  const values: string[] = []
  const mark = `\0${key}=`
  for (let at = module.indexOf(mark, 0, 'latin1'); at >= 0; at = module.indexOf(mark, at + 1, 'latin1')) {
    const start = at + mark.length
    values.push(module.toString('latin1', start, module.indexOf(0, start)))
  }
  return values
}

/**
 * The module without the distribution's signature at its end: to check one is a SHA-256 over the module and an RSA
 * operation, and a kernel that does not insist takes both alike.
 * The layout is that of struct module_signature in Linux's include/linux/module_signature.h.
 */
export function withoutSignature(module: Buffer): Buffer {
  const magic = '~Module signature appended~\n'
  const infoAt = module.length - magic.length - 12
  if (infoAt < 0 || module.toString('latin1', module.length - magic.length) !== magic) return module
  const end = infoAt - module.readUInt32BE(infoAt + 8)
  return end > 0 ? module.subarray(0, end) : module
}
