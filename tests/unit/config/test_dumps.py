"""Settings are dumped as ever: stages are named after them, and what was made before must be found again."""

import hashlib
import json
from pathlib import Path

import pytest

from dfnas_ray.config.experiment import load_experiment, make_experiment

EXPERIMENTS = Path(__file__).parents[3] / "experiments"

# sha256 of json.dumps(section.model_dump(mode="json"), sort_keys=True), computed at commit 561d76b; synthesis, and the sweeps
# that vary its settings, since the synthesizers.
SECTIONS = {
    "tiny": {
        "synthesis": "33d175b89724acc996e884b360d7bd934841a469eb2ca5d3b03ba8f2b38ffb48",
        "search": "fe68cb60671d86bea21cd52ba97863694a9434c244e6742897eb826977621282",
        "retraining": "cc4aaeb7d221c6f9b299c9e0fe209a1d0287b68aa34950068f831c2b9148d7d3",
    },
    "benchmark-cifar10": {
        "synthesis": "a811993ec59ab3810d329417b3d79e5698e9e7dbfad02f6353583c8167495838",
        "search": "28da66ea43d032b05c832d75a424dc36e295c0dbbe450d1a2f069d30b2cb1a71",
        "retraining": "d61818108045bfeedfc3272d9036c015011c06d563ec38cb2a8c73085f01a80e",
        "benchmark": "3dda1f35b8d89690d56600261def6858376be5f394f1fdb3ea868e44c3992585",
    },
    "cifar10-sweep": {
        "synthesis": "1420bd9518d3921b849d3b71839329354c3373daff3ffc2019673644e3ee44d1",
        "search": "0ba2a896d9f48e9ce32f68e48dbdc5b7f7b7aee9cb30ee9be4887c81e52098c2",
        "retraining": "977c7a462454d5458c49cccfcd5b0c00ea623c49a251721507dcdfe2da5850cc",
        "sweep": "a779539fd26329f288f7aa05dce7b6cc8b59d9678b0a76f5aa422a61957fc93c",
    },
    "cifar10": {
        "synthesis": "3a93d30b58ccb514b840a1dcc575fec4df70dc2c81efeef732935e373b1755a3",
        "search": "84e359d2c8fba22f4529b944a151fb5e18de8c7048e9c2d698906047fe929f93",
        "retraining": "84a6569365aa12b8469c4fe5abb95a9f0cc4962107ae6eb30112e954797945b5",
    },
    "darts-cifar10": {
        "synthesis": "2e4c7fb5018ceffa77162bf4ac90c34ce5cc7f40e4d39de6b6b094cf4001bdef",
        "search": "4920aeae7ae320e626fd5bc5eafb88039a851e715d9627dc4d8ca46d91012561",
        "retraining": "f29d7e2776ed253679620a969be4dc558e530c5e1692c082e52e7f893d7f033b",
    },
    "digits-darts": {
        "synthesis": "01dc278c9562c15ae843f6ee7b10ea45510a3632780c0c752b74d016daf31f30",
        "search": "07ac5ab47f88edfd7d70ecd5c01db661b6a9cc06463ff6f6e53ebeeed63b6702",
        "retraining": "b4efbe40c209971e3ef3ac41ed0565c507ccb78eddce94c2d318ddec914f2b32",
    },
    "digits-multi-fidelity": {
        "synthesis": "01dc278c9562c15ae843f6ee7b10ea45510a3632780c0c752b74d016daf31f30",
        "search": "5c3d033905f4cf98bbffd65484dd95ef0ca562d448efbe5afad79539dcfd9769",
        "retraining": "b4efbe40c209971e3ef3ac41ed0565c507ccb78eddce94c2d318ddec914f2b32",
    },
    "digits-proxyless": {
        "synthesis": "01dc278c9562c15ae843f6ee7b10ea45510a3632780c0c752b74d016daf31f30",
        "search": "8b2bda76a58b4e4825e537140a839f8523c54ed571f29754edd65a886bc61fba",
        "retraining": "b4efbe40c209971e3ef3ac41ed0565c507ccb78eddce94c2d318ddec914f2b32",
    },
    "digits-sweep": {
        "synthesis": "959bee053f141ff55d5eaaaef1cc0c111f6c8d75347bdbfd939b64c09c912bbd",
        "search": "5ccda906331494033b1e630abf0b3c8bd917f1eeab6e9f53fa44ff925339d04b",
        "retraining": "38538d6654755b4d81e602e3c86897089e77a926490f728636b8cf31dc0bf3e5",
        "sweep": "ecf297a164c7ab3699d2c20f42668d3ca3bb96e02e40701a6ade738c54e12192",
    },
    "digits-spos": {
        "synthesis": "01dc278c9562c15ae843f6ee7b10ea45510a3632780c0c752b74d016daf31f30",
        "search": "7c65a66a8424d88964453d2e372c05b1a1a82d3c29f92662ae80645bbbed8400",
        "retraining": "b4efbe40c209971e3ef3ac41ed0565c507ccb78eddce94c2d318ddec914f2b32",
    },
    "digits": {
        "synthesis": "4312e8bc09eef6eb2b742d6e2b240d68a0f51114f8b354e7ca87dd5c474a65f5",
        "search": "333521aaf93176af43fd626b92976c235da3157e817da6c1bc3a2f9f578414aa",
        "retraining": "49d1f96b947d5a0ee600f3ae4729f971acbcb2dbf2eff3fbda46c65afb661ed3",
    },
    "nasbench-macro": {
        "synthesis": "2e4c7fb5018ceffa77162bf4ac90c34ce5cc7f40e4d39de6b6b094cf4001bdef",
        "search": "705d73d5e58ac88b862acc0f49300cd1b73be0c034192669f677b40983379289",
        "retraining": "89e9dabdb80f05ac4d36b3ef2c768b2941f99bac075fcbeff400000d778b9d37",
    },
    "nasbench201-search": {
        "synthesis": "a256b7744f4c72d8523e5eaf7494a620cb2ebc4b1b2f5d02ec47e6c927d04346",
        "search": "47f87ef74e4bd2644cb7fc3c1d44103c946db9974b9c61485c5332d620b8ec3f",
        "retraining": "d61818108045bfeedfc3272d9036c015011c06d563ec38cb2a8c73085f01a80e",
    },
    "nasbench201": {
        "synthesis": "2e4c7fb5018ceffa77162bf4ac90c34ce5cc7f40e4d39de6b6b094cf4001bdef",
        "search": "ad38e816715d8aea52ef68f138d2c1db9f1356c9b88a70c2a528842ed142d8a3",
        "retraining": "89e9dabdb80f05ac4d36b3ef2c768b2941f99bac075fcbeff400000d778b9d37",
    },
    "proxyless-imagenet": {
        "synthesis": "1c9a57f260a8e71149ab254aee44655dad7966d44c5d5a70499a1f3da9f3c8c7",
        "search": "e88caae1f0134aeb952a67a10ad8b945f1514d3070abfca97034333af3e2eb48",
        "retraining": "dfc8aea5a2ce8e16cc2869fe0d9127ec6977f722c767e6fea36273e7419bc0b1",
    },
    "spos-imagenet": {
        "synthesis": "1c9a57f260a8e71149ab254aee44655dad7966d44c5d5a70499a1f3da9f3c8c7",
        "search": "7cc44f75aebdf4a7d2c2ac255006044bc1b716f63150ab3db157ac3fd59aae95",
        "retraining": "dfc8aea5a2ce8e16cc2869fe0d9127ec6977f722c767e6fea36273e7419bc0b1",
    },
}
SEARCHES = {
    ("alignment", "darts"): "b47e0f63aabd397344a04cba97f94d05d1eaa090ba471df875fb991cf494ef0c",
    ("alignment", "nasbench201"): "30492abd946d61cd6e8765363722470ecf95abfe667fd122afa23c790845b573",
    ("alignment", "nasbench_macro"): "c4b3657638960cf1f55bedb3e602266ebcab6d3d66862031457a0fb3125ee28b",
    ("alignment", "proxyless"): "37fe77d8e5bbb6c719bab22e4c52ebf7c1e55f66d6ae1ec9d37206afd5fb39a8",
    ("alignment", "shufflenet"): "44544f31d870145cc113c892848527751934a798c3fb968eedfa26a030b95fa3",
    ("darts", "darts"): "923a50eaa52da167321b190646db8ccf60ae69c7a420eebf8ec1ef7abd4cd7b9",
    ("darts", "nasbench201"): "0efbd4fd88a2469ffdd818fc17f41cbab33b69627907cdf97937fbf5dfa66380",
    ("darts", "nasbench_macro"): "7eae134f7d2ddba1358774260e64fcde95836d980e0c744bb8640b97011c1c57",
    ("darts", "proxyless"): "597aafb71ac44b8c8613241d7e654e1133873adcf5911ff46f227ecf5a50c3d6",
    ("darts", "shufflenet"): "73e4dd4660b2c03b4db61e2a0eec3b2163cd33951ff927b86f500644b40315e1",
    ("multi_fidelity", "darts"): "2c3d2f5bc8f467eb9b6ee099f09235d7844edc0343062017ea3b7dfd8cba34cf",
    ("multi_fidelity", "nasbench201"): "7fe28fcedd13e76efba1f3114eadff83bf6238911028f01a69471cce75df2c98",
    ("multi_fidelity", "nasbench_macro"): "037383c9674347dff0f86604fa73b62705264e82aae1f6327a14711bd1323c40",
    ("multi_fidelity", "proxyless"): "b58675b5fd5a3bb7a5cd26622c131cd10c02f1717f3f7fca1d050da20e7fde4e",
    ("multi_fidelity", "shufflenet"): "3dd664571926294ecb7df4366b42c8af5dd462bc355fde7085ba9ed22a50c590",
    ("proxyless", "nasbench201"): "4369de8303c6672969503dcd3892d6e8c7df0baa2cbd8528f0a378cd0494f62b",
    ("proxyless", "nasbench_macro"): "8047889721d08f04545f2b366520821b5c6ed67490df45fc7d759b71d880d08c",
    ("proxyless", "proxyless"): "92b520440761f383b1dc7b7efebcb16f4cf9ed660ad05faf79480d0acf8f443a",
    ("proxyless", "shufflenet"): "a92b67f5e73ceb931941344cdb780c936d973ebe15c6de30bc8f8b261875e97e",
    ("random_search", "darts"): "798303b71611edcf728cafc6d848cd800ccf18851fe7f1e4de25aaf6f4527345",
    ("random_search", "nasbench201"): "a778c6b7721c3a3d6ebfa6bc65856d180b8e8b2956ed0e816cfef89d944e8610",
    ("random_search", "nasbench_macro"): "1143fcb80ca53496521e66aa6086473e09576d829989c5f06d6951ce9adde6c0",
    ("random_search", "proxyless"): "808e61474664fdee28a3464582f42038ab96859731b553a19e286a240b45a7f2",
    ("random_search", "shufflenet"): "049c8d12579a2c31f96664fa98dac0e9bfa489727195c56e19416bba3b7539b8",
    ("spos", "darts"): "b003d3363d7b18d6afe2891644776d06672f7b7a1112883adaf08b8d68a4c8bf",
    ("spos", "nasbench201"): "8ebe96dcff500b3d34da5a004b6be44dc52feec47df3d7c5c4f9f136e23ec5db",
    ("spos", "nasbench_macro"): "d7c17cbdf4c88d423a30d14913a600730ea44c425de722d54ceac80ed4611752",
    ("spos", "proxyless"): "3affd16651c4b770476dce8227b953313230c2fa023986ae350f8813761a9426",
    ("spos", "shufflenet"): "690b0703b243ef60c1cb0b8431320cf1e1c2005009309f2861449f10f00fb0b0",
    ("zero_cost", "darts"): "bb0135a6da58b2a2153888a40af6f65563afc282005f3e8a9201d362e8150a8c",
    ("zero_cost", "nasbench201"): "1a1608303689b9b479a011c8e90ccd303768770e8a9b42825ac1000798496788",
    ("zero_cost", "nasbench_macro"): "19b98266881f6a3f3cd1f3fc8b51352348faf2069822c524571323654fea3f5d",
    ("zero_cost", "proxyless"): "0bbaeca62731658653d172cd27cdc0c261ef8dad32f5324fc56e5c11466dd147",
    ("zero_cost", "shufflenet"): "42666429c66fb1165aab9afc283ccff07e3bced6ea816d6973b64b748463bc6a",
}
"""Of search, with an algorithm and a space at their defaults."""


def digest_of(section):
    """Of what keys are made from: where images come from, and what their labels teach, was no choice at first."""
    settings = section.model_dump(mode="json", exclude={"images", "labels"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_sections_of_an_experiment_are_dumped_as_ever(name, tiny_values):
    config = make_experiment(tiny_values()) if name == "tiny" else load_experiment(EXPERIMENTS / f"{name}.yaml")
    assert {section: digest_of(getattr(config, section)) for section in SECTIONS[name]} == SECTIONS[name]


@pytest.mark.parametrize(("algorithm", "space"), SEARCHES)
def test_members_at_their_defaults_are_dumped_as_ever(algorithm, space):
    config = make_experiment({"teacher": "digits", "search": {"algorithm": algorithm, "space": space}})
    assert digest_of(config.search) == SEARCHES[algorithm, space]
